//! LSTM and GRU over runs.

use crate::error::{Result, fail};
use crate::tensor::Tensor;

pub fn lstm(_x: &Tensor, _w: [&Tensor; 4], _starts: &Tensor, _reverse: bool) -> Result<Tensor> {
    fail!(ET_ERR_UNIMPLEMENTED, "lstm")
}
pub fn gru(_x: &Tensor, _w: [&Tensor; 4], _starts: &Tensor, _reverse: bool) -> Result<Tensor> {
    fail!(ET_ERR_UNIMPLEMENTED, "gru")
}
