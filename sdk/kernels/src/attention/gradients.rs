//! What attention's backward pass reads and writes.

use crate::runs::{RowsView, SharedRows};
use crate::{Float, Result, check_len};

/// Where [`crate::attention::backward::attention_backward`] writes the gradients. Everything is overwritten.
#[derive(Debug)]
pub enum AttentionGradients<'a, F> {
    /// Three matrices: [Tq, H], [Tk, H], [Tk, H].
    Separate {
        /// Gradient of the queries.
        q: &'a mut [F],
        /// Gradient of the keys.
        k: &'a mut [F],
        /// Gradient of the values.
        v: &'a mut [F],
    },
    /// One matrix [T, 3 H] whose thirds are those of queries, keys and values; needs Tq = Tk.
    Fused(&'a mut [F]),
    /// Queries alone, [Tq, H], and one matrix [Tk, 2 H] for keys and values.
    FusedKeyValue {
        /// Gradient of the queries.
        q: &'a mut [F],
        /// Gradients of keys and values.
        kv: &'a mut [F],
    },
}

impl<'a, F: Float> AttentionGradients<'a, F> {
    pub(super) fn into_rows(
        self,
        kernel: &'static str,
        queries: usize,
        keys: usize,
        width: usize,
    ) -> Result<[SharedRows<'a, F>; 3]> {
        let check = |argument, expected, found| check_len(kernel, argument, expected, found);
        Ok(match self {
            Self::Separate { q, k, v } => {
                check("dq", queries * width, q.len())?;
                check("dk", keys * width, k.len())?;
                check("dv", keys * width, v.len())?;
                [q, k, v].map(|data| SharedRows::new(data, width))
            }
            Self::Fused(data) => {
                check("rows of keys (dq, dk and dv being one matrix)", queries, keys)?;
                check("dqkv", queries * 3 * width, data.len())?;
                let q = SharedRows::new(data, 3 * width);
                let (k, v) = (q.shifted(width), q.shifted(2 * width));
                [q, k, v]
            }
            Self::FusedKeyValue { q, kv } => {
                check("dq", queries * width, q.len())?;
                check("dkv", keys * 2 * width, kv.len())?;
                let k = SharedRows::new(kv, 2 * width);
                let v = k.shifted(width);
                [SharedRows::new(q, width), k, v]
            }
        })
    }
}

/// What the forward pass read and wrote, and the gradient of its output.
#[derive(Debug, Clone, Copy)]
pub struct AttentionSaved<'a, F> {
    /// Queries [Tq, H].
    pub q: RowsView<'a, F>,
    /// Keys [Tk, H].
    pub k: RowsView<'a, F>,
    /// Values [Tk, H].
    pub v: RowsView<'a, F>,
    /// Output [Tq, H] of the forward pass.
    pub o: &'a [F],
    /// Logarithms [Tq, heads] that the forward pass wrote.
    pub lse: &'a [F],
    /// Dropout's decisions, if the forward pass wrote them.
    pub decisions: Option<&'a [u16]>,
}
