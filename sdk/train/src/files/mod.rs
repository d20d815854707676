//! Files that are read and written whole, whoever wrote them: weights ([`safetensors`], [`torch_pickle`] in its
//! `zip` archive), arrays ([`npy`]), predictions ([`output`]), and how anything gets to disk at all ([`atomic`],
//! [`destination`], `lock`).

pub mod atomic;
pub mod destination;
pub mod dtype;
#[cfg(feature = "train")]
pub mod lock;
pub mod npy;
pub mod output;
mod pending;
#[cfg(feature = "pickle")]
mod pickle;
pub mod safetensors;
#[cfg(feature = "pickle")]
pub mod torch_pickle;
#[cfg(feature = "pickle")]
mod zip;
