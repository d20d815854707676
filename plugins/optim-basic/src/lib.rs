//! optim-basic
