//! TensorBoard event files: `Event` messages of protocol buffers, encoded by hand, in TFRecord frames.
//!
//! A frame is the length (u64), its masked CRC-32C (u32), the message and its masked CRC-32C (u32), all little-endian.
//! The fields that are written: `Event { 1: double wall_time, 2: int64 step, 3: string file_version, 5: Summary, 7:
//! SessionLog }`, `Summary { 1: Value }`, `Value { 1: string tag, 2: float simple_value }`, `SessionLog { 1: status
//! }`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};

/// The remainders of the Castagnoli polynomial, reflected, for each byte.
const CRC_TABLE: [u32; 256] = {
    let mut table = [0u32; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// CRC-32C (Castagnoli, RFC 3720) of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    !bytes
        .iter()
        .fold(u32::MAX, |crc, &byte| crc >> 8 ^ CRC_TABLE[((crc ^ u32::from(byte)) & 255) as usize])
}

/// The checksum as TFRecord stores it, so that a checksum of data with checksums stays useful.
fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field of wire type 2: bytes with their length.
fn bytes_field(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn event(wall_time: f64, step: u64, field: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![1 << 3 | 1];
    out.extend_from_slice(&wall_time.to_le_bytes());
    if step != 0 {
        out.push(2 << 3);
        varint(&mut out, step);
    }
    bytes_field(&mut out, field, content);
    out
}

fn frame(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(message.len() + 16);
    out.extend_from_slice(&length);
    out.extend_from_slice(&masked(&length).to_le_bytes());
    out.extend_from_slice(message);
    out.extend_from_slice(&masked(message).to_le_bytes());
    out
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// Writes one event file.
pub struct EventWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventWriter {
    /// Starts a new event file in `directory`, which is created if need be.
    pub fn create(directory: &Path) -> Result<EventWriter> {
        std::fs::create_dir_all(directory).map_err(|e| Error::io("create", directory, e))?;
        let seconds = now() as u64;
        for attempt in 0..1000 {
            let name = format!(
                "events.out.tfevents.{seconds}.easytransfer.{}.{attempt}",
                std::process::id()
            );
            let path = directory.join(name);
            match File::create_new(&path) {
                Ok(file) => {
                    let mut writer = EventWriter { path, file: BufWriter::new(file) };
                    writer.write(&event(now(), 0, 3, b"brain.Event:2"))?;
                    writer.flush()?;
                    return Ok(writer);
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io("create", path, error)),
            }
        }
        Err(Error::other(format!("`{}` holds too many event files", directory.display())))
    }

    /// Starts a new event file for a run that goes on from `step`; TensorBoard then drops what older files in the
    /// directory say about later steps.
    pub fn resume(directory: &Path, step: u64) -> Result<EventWriter> {
        let mut writer = EventWriter::create(directory)?;
        // SessionLog { status: START }; TensorBoard purges from the step of this event on.
        writer.write(&event(now(), step + 1, 7, &[1 << 3, 1]))?;
        writer.flush()?;
        Ok(writer)
    }

    /// Adds the value of the curve `tag` at `step`.
    pub fn scalar(&mut self, step: u64, tag: &str, value: f32) -> Result<()> {
        let mut point = Vec::new();
        bytes_field(&mut point, 1, tag.as_bytes());
        point.push(2 << 3 | 5);
        point.extend_from_slice(&value.to_le_bytes());
        let mut summary = Vec::new();
        bytes_field(&mut summary, 1, &point);
        self.write(&event(now(), step, 5, &summary))
    }

    /// The file that is being written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Hands everything to the operating system.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(|error| Error::io("write", &self.path, error))
    }

    fn write(&mut self, message: &[u8]) -> Result<()> {
        self.file.write_all(&frame(message)).map_err(|error| Error::io("write", &self.path, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::atomic::tests::Scratch;

    #[test]
    fn crc_equals_published_values() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        // RFC 3720, B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn events_are_encoded_as_protocol_buffers() {
        let message = event(1.5, 300, 3, b"ab");
        let mut expected = vec![0x09];
        expected.extend_from_slice(&1.5f64.to_le_bytes());
        expected.extend_from_slice(&[0x10, 0xac, 0x02, 0x1a, 2, b'a', b'b']);
        assert_eq!(message, expected);
    }

    #[test]
    fn file_is_a_chain_of_checked_frames() {
        let scratch = Scratch::new("events");
        let mut writer = EventWriter::create(scratch.path()).unwrap();
        writer.scalar(7, "loss", 0.25).unwrap();
        writer.flush().unwrap();
        let again = EventWriter::resume(scratch.path(), 7).unwrap();
        assert_ne!(again.path(), writer.path());
        let bytes = std::fs::read(writer.path()).unwrap();
        let mut messages = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], masked(&rest[..8]).to_le_bytes());
            let message = &rest[12..12 + length];
            assert_eq!(rest[12 + length..16 + length], masked(message).to_le_bytes());
            messages.push(message.to_vec());
            rest = &rest[16 + length..];
        }
        assert_eq!(messages.len(), 2);
        assert!(messages[0].ends_with(b"brain.Event:2"));
        let mut tail = vec![0x10, 7, 0x2a, 13, 0x0a, 11, 0x0a, 4];
        tail.extend_from_slice(b"loss\x15");
        tail.extend_from_slice(&0.25f32.to_le_bytes());
        assert_eq!(messages[1][9..], tail[..]);
    }
}
