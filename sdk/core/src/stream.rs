//! Byte streams of checkpoints, in memory.

use std::sync::{Arc, Mutex};

use easytransfer_abi::et_stream;

use crate::error::{Result, fail};
use crate::handle::{Handle, tag};
use crate::sync::lock;

/// A stream that is either written or read.
#[derive(Debug)]
pub struct Stream(Mutex<State>);

#[derive(Debug)]
enum State {
    Writing(Arc<Vec<u8>>),
    Reading { bytes: Arc<Vec<u8>>, at: usize },
}

impl Handle for Stream {
    type Abi = et_stream;
    const TAG: u32 = tag(b"ETst");
    const NAME: &'static str = "stream";
}

impl Stream {
    /// An empty stream for writing.
    pub fn writer() -> Self {
        // What is written next is the state of an optimizer, several times the parameters: the pool can wait.
        crate::pool::trim_pool();
        Self(Mutex::new(State::Writing(Arc::default())))
    }

    /// A stream that reads `bytes` from their begin.
    pub fn reader(bytes: Vec<u8>) -> Self {
        Self(Mutex::new(State::Reading { bytes: Arc::new(bytes), at: 0 }))
    }

    /// Appends bytes. Errors: `FAILED_PRECONDITION` on a stream for reading.
    pub fn write(&self, data: &[u8]) -> Result<()> {
        match &mut *lock(&self.0) {
            // Copies what was handed out before, so that it stays as it was.
            State::Writing(bytes) => Arc::make_mut(bytes).extend_from_slice(data),
            State::Reading { .. } => {
                fail!(ET_ERR_FAILED_PRECONDITION, "the stream was opened for reading")
            }
        }
        Ok(())
    }

    /// Fills `data`. Errors: `BAD_INPUT` when fewer bytes are left (nothing is read then), `FAILED_PRECONDITION` on a
    /// stream for writing.
    pub fn read(&self, data: &mut [u8]) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        match &mut *lock(&self.0) {
            State::Reading { bytes, at } => {
                let left = bytes.len() - *at;
                if data.len() > left {
                    fail!(
                        ET_ERR_BAD_INPUT,
                        "the stream ends too early: expected {} bytes at {at}, found {left}",
                        data.len()
                    );
                }
                data.copy_from_slice(&bytes[*at..*at + data.len()]);
                *at += data.len();
                Ok(())
            }
            State::Writing(_) => {
                fail!(ET_ERR_FAILED_PRECONDITION, "the stream was opened for writing")
            }
        }
    }

    /// Bytes left to read; 0 on a stream for writing.
    pub fn remaining(&self) -> usize {
        match &*lock(&self.0) {
            State::Reading { bytes, at } => bytes.len() - at,
            State::Writing(_) => 0,
        }
    }

    /// Everything that was written so far, or that a stream for reading holds. Later writes do not change it.
    pub fn bytes(&self) -> Arc<Vec<u8>> {
        match &*lock(&self.0) {
            State::Reading { bytes, .. } | State::Writing(bytes) => bytes.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use easytransfer_abi::{ET_ERR_BAD_INPUT, ET_ERR_FAILED_PRECONDITION};

    #[test]
    fn what_was_written_can_be_read_once() {
        let writer = Stream::writer();
        writer.write(b"abc").unwrap();
        writer.write(b"de").unwrap();
        assert_eq!(writer.read(&mut [0]).unwrap_err().code, ET_ERR_FAILED_PRECONDITION);
        let before = writer.bytes();
        let reader = Stream::reader(before.to_vec());
        assert_eq!(reader.remaining(), 5);
        writer.write(b"f").unwrap();
        assert_eq!((before.as_slice(), writer.bytes().as_slice()), (&b"abcde"[..], &b"abcdef"[..]));
        let mut four = [0; 4];
        reader.read(&mut four).unwrap();
        assert_eq!(&four, b"abcd");
        let short = reader.read(&mut [0; 2]).unwrap_err();
        assert_eq!(short.code, ET_ERR_BAD_INPUT);
        assert!(short.message.contains("found 1"), "{short}");
        assert_eq!(reader.remaining(), 1);
        assert_eq!(reader.write(b"x").unwrap_err().code, ET_ERR_FAILED_PRECONDITION);
    }
}
