//! Files that are read and written whole, whoever wrote them: weights ([`safetensors`], [`torch_pickle`] in its [`zip`]
//! archive), arrays ([`npy`]), predictions ([`output`]), and how anything gets to disk at all ([`atomic`]).

pub mod atomic;
pub mod dtype;
pub mod npy;
pub mod output;
mod pickle;
pub mod safetensors;
pub mod torch_pickle;
mod zip;
