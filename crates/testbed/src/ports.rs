//! Blocks of free ports on 127.0.0.1, held for as long as a cluster lives.

use std::fs::{File, TryLockError};
use std::net::TcpListener;

use anyhow::{Result, bail};

/// Below the range from which the kernel takes ports for outgoing connections.
const FIRST: u16 = 20_000;
const BLOCK: u16 = 60;
const BLOCKS: u16 = 200;

/// A block of ports that no other testbed of this user takes while the lock is held.
#[derive(Debug)]
pub(crate) struct Ports {
    _lock: File,
    next: u16,
    end: u16,
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
            let end = first + BLOCK;
            if (first..end).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
                return Ok(Self { _lock: lock, next: first, end });
            }
        }
        bail!("no free block of {BLOCK} ports between {FIRST} and {}", FIRST + BLOCK * BLOCKS)
    }

    /// The next port of the block.
    pub fn take(&mut self) -> Result<u16> {
        if self.next == self.end {
            bail!("the {BLOCK} ports of this cluster are used up");
        }
        self.next += 1;
        Ok(self.next - 1)
    }
}
