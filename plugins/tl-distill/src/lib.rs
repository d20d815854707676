//! tl-distill
