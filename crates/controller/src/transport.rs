//! What all exchanges with servers other than the API server have in common: bodies of a bounded size, certificate
//! authorities from files, and failures in words that contain no address.

use std::io;
use std::path::Path;

use reqwest::{Certificate, Response};

/// What kept an exchange from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The server cannot prove who it is.
    Certificate,
    /// The connection did not come about, or broke.
    Connection(Option<io::ErrorKind>),
    /// What came is not HTTP, or not the whole of it.
    NoHttp,
}

/// Why a body was not read.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// It is larger than allowed.
    TooLarge,
    /// It did not come to its end.
    Broken(reqwest::Error),
}

/// What kept an exchange from its end, without the error's own words: they have the address.
pub(crate) fn broken(error: &reqwest::Error) -> Broken {
    let kind = causes(error).find_map(|cause| cause.downcast_ref::<io::Error>()).map(innermost);
    match kind {
        Some(io::ErrorKind::InvalidData) if error.is_connect() => Broken::Certificate,
        // The end of an answer that came too early.
        Some(kind) if error.is_connect() || kind != io::ErrorKind::UnexpectedEof => {
            Broken::Connection(Some(kind))
        }
        None if error.is_connect() => Broken::Connection(None),
        _ => Broken::NoHttp,
    }
}

/// What is behind an error that only passes another one on: then its own kind says nothing.
fn innermost(error: &io::Error) -> io::ErrorKind {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<io::Error>()) {
        Some(inner) => innermost(inner),
        None => error.kind(),
    }
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(error), |cause| cause.source())
}

/// The body, as long as it has no more bytes than `limit`.
pub(crate) async fn body(mut response: Response, limit: usize) -> Result<Vec<u8>, BodyError> {
    let announced = response.content_length().and_then(|length| usize::try_from(length).ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(BodyError::TooLarge);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(BodyError::Broken)? {
        if body.len() + chunk.len() > limit {
            return Err(BodyError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The certificates of a PEM file, at least one; else what is wrong with the file, to be put after its name.
pub(crate) fn certificates(file: &Path) -> Result<Vec<Certificate>, String> {
    let pem = std::fs::read(file).map_err(|error| format!("cannot be read ({})", error.kind()))?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err("holds no certificates in PEM format".to_owned()),
    }
}
