//! Recurrent layers over runs of tokens, forward and backward.

pub mod gru;
pub mod lstm;
pub mod rnn;
