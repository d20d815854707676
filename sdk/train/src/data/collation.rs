//! From the rows that records become to a batch.

use std::borrow::Borrow;

use easytransfer_plugin::{Map, Row};

use crate::data::batching::BatchOptions;
use crate::error::{Error, Result};

/// The features of one record: its rows.
pub struct Sample {
    rows: Vec<Row>,
    tokens: usize,
}

impl Sample {
    /// Rows that an app made of a record.
    pub fn new(rows: Vec<Row>) -> Sample {
        let tokens = rows.iter().map(Row::tokens_len).sum();
        Sample { rows, tokens }
    }

    /// The rows in their order.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Tokens of all rows.
    pub fn tokens_len(&self) -> usize {
        self.tokens
    }
}

/// Some rows as tensors.
pub struct Batch {
    /// The tensors by name.
    pub map: Map,
    /// Number of rows.
    pub rows: u64,
    /// Number of tokens.
    pub tokens: u64,
}

/// How to batch while nothing is trained.
pub fn batch_options(tokens: u32) -> BatchOptions {
    BatchOptions { max_tokens: tokens, max_rows: 0, window: 4096, seed: 0, epoch: 0 }
}

/// Lengths of samples in tokens.
pub fn lengths(samples: &[impl Borrow<Sample>]) -> Vec<u32> {
    let length = |sample: &Sample| u32::try_from(sample.tokens_len()).unwrap_or(u32::MAX);
    samples.iter().map(|sample| length(sample.borrow())).collect()
}

/// A batch of all rows of some of the samples.
pub fn collate(samples: &[impl Borrow<Sample>], indices: &[u32]) -> Result<Batch> {
    let picked = indices.iter().map(|&index| samples[index as usize].borrow());
    let rows: Vec<&Row> = picked.flat_map(Sample::rows).collect();
    collate_rows(&rows)
}

/// A batch of these rows. Errors: rows with other fields than the first one.
pub fn collate_rows(rows: &[&Row]) -> Result<Batch> {
    let tokens = rows.iter().map(|row| row.tokens_len() as u64).sum();
    if rows.is_empty() {
        return Err(Error::other("a batch needs at least one row"));
    }
    Ok(Batch { map: Map::from_rows(rows)?, rows: rows.len() as u64, tokens })
}
