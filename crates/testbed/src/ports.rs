//! Blocks of free ports on 127.0.0.1, held for as long as a cluster lives.

use std::collections::VecDeque;
use std::fs::{File, TryLockError};
use std::net::TcpListener;

use anyhow::{Context as _, Result, bail};

/// Below the range from which the kernel takes ports for outgoing connections.
const FIRST: u16 = 20_000;
const BLOCK: u16 = 60;
const BLOCKS: u16 = 200;

/// A block of ports that no other testbed of this user takes while the lock is held.
#[derive(Debug)]
pub(crate) struct Ports {
    _lock: File,
    free: VecDeque<u16>,
}

impl Ports {
    /// Takes a block whose ports are all free: a killed server may still hold one of an earlier cluster.
    pub fn reserve() -> Result<Self> {
        let dir = crate::binaries::ports_dir()?;
        for block in 0..BLOCKS {
            let lock = File::create(dir.join(format!("{block}.lock")))?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
            let first = FIRST + block * BLOCK;
            let ports = first..first + BLOCK;
            let mut each = ports.clone();
            if each.all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
                return Ok(Self { _lock: lock, free: ports.collect() });
            }
        }
        bail!("no free block of {BLOCK} ports between {FIRST} and {}", FIRST + BLOCK * BLOCKS)
    }

    /// A port of the block: the one that has been free for the longest.
    pub fn take(&mut self) -> Result<u16> {
        self.free.pop_front().with_context(|| format!("the {BLOCK} ports of this cluster are used up"))
    }

    /// Ports whose server has ended.
    pub fn give_back(&mut self, ports: impl IntoIterator<Item = u16>) {
        self.free.extend(ports);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_servers_that_have_ended_are_taken_again() {
        let mut ports = Ports::reserve().unwrap();
        let all: Vec<u16> = (0..BLOCK).map(|_| ports.take().unwrap()).collect();
        assert!(ports.take().is_err(), "all are in use");
        ports.give_back([all[3], all[1]]);
        assert_eq!([ports.take().unwrap(), ports.take().unwrap()], [all[3], all[1]]);
        assert!(ports.take().is_err());
    }
}
