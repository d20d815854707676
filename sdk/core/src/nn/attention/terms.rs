//! What is added to attention's scores, and what is hidden, as in `et_attention`.

use super::super::{check_shape, dense, given, integers};
use crate::error::{Result, fail};
use crate::kernels::attention::terms::{AttentionTerms, DistanceBias, Order, Positions, Segments};
use crate::kernels::runs::RowsView;
use crate::storage::{self, Real, Slice, Value};
use crate::tensor::Tensor;

/// All absent by default; each as the member of `et_attention` of that name.
#[derive(Default)]
pub struct Terms<'a> {
    /// Greatest distance at which a key is seen; 0 for no limit.
    pub window: usize,
    /// Bias [buckets, heads].
    pub bias: Option<&'a Tensor>,
    /// Row of the bias for each distance, I64 [2 reach + 1].
    pub bias_buckets: Option<&'a Tensor>,
    /// Keys of positions [P, H].
    pub position_keys: Option<&'a Tensor>,
    /// The queries [Tq, H] that meet them.
    pub position_query: Option<&'a Tensor>,
    /// Queries of positions [P, H].
    pub position_queries: Option<&'a Tensor>,
    /// Row of both tables for each distance, I64 [2 reach + 1].
    pub position_buckets: Option<&'a Tensor>,
    /// Scores of segments [Tq, heads, 2].
    pub segment_scores: Option<&'a Tensor>,
    /// Segments of the queries, I64 `[Tq]`.
    pub segments: Option<&'a Tensor>,
    /// Those of the keys, I64 `[Tk]`, if they differ.
    pub key_segments: Option<&'a Tensor>,
    /// Places of the queries, I64 `[Tq]`.
    pub order: Option<&'a Tensor>,
    /// Those of the keys, I64 `[Tk]`, if they differ.
    pub key_order: Option<&'a Tensor>,
    /// Keys of the query's own place are seen, too.
    pub order_inclusive: bool,
}

/// The checked integers of the terms.
pub(super) struct Integers {
    window: usize,
    bias_buckets: Option<Value>,
    position_buckets: Option<Value>,
    /// Of queries and keys.
    segments: Option<[Value; 2]>,
    order: Option<[Value; 2]>,
    order_inclusive: bool,
}

/// Fails unless members that belong together are given together.
fn together(op: &str, [a, b]: [(&str, bool); 2]) -> Result<()> {
    let [(given, _), (missing, _)] = if a.1 { [a, b] } else { [b, a] };
    if a.1 != b.1 {
        fail!(ET_ERR_INVALID_ARGUMENT, "{op}: {given} is given without {missing}");
    }
    Ok(())
}

/// Fails unless `x` is a matrix of that many columns.
fn check_columns(op: &str, [name, shape]: [&str; 2], x: &Tensor, columns: usize) -> Result<()> {
    if x.dims().len() != 2 || x.dims()[1] != columns {
        fail!(
            ET_ERR_SHAPE,
            "{op}: {name} must have the shape {shape} with {columns} columns, found {:?}",
            x.dims()
        );
    }
    Ok(())
}

/// Numbers of queries and keys, I64 with one element each; those of the keys are those of the queries if not given.
fn numbers(
    op: &str,
    [name, key_name]: [&str; 2],
    of_queries: &Tensor,
    of_keys: Option<&Tensor>,
    [queries, keys]: [usize; 2],
) -> Result<[Value; 2]> {
    let own = integers(op, name, of_queries)?;
    check_shape(op, name, of_queries, &[queries])?;
    let other = match of_keys {
        Some(of_keys) => {
            check_shape(op, key_name, of_keys, &[keys])?;
            integers(op, key_name, of_keys)?
        }
        None if keys == queries => own.clone(),
        None => fail!(
            ET_ERR_INVALID_ARGUMENT,
            "{op}: {key_name} is needed, because there are {queries} queries and {keys} keys"
        ),
    };
    Ok([own, other])
}

impl<'a> Terms<'a> {
    /// Fails unless the members fit each other and that many queries and keys. What a map of buckets holds is checked
    /// by the kernels.
    pub(super) fn check(
        &self,
        op: &str,
        [queries, keys]: [usize; 2],
        heads: usize,
        width: usize,
    ) -> Result<Integers> {
        let Self { bias, position_keys, position_query, position_queries, .. } = self;
        let positions = position_keys.is_some() || position_queries.is_some();
        for pair in [
            [("bias", bias.is_some()), ("bias_buckets", self.bias_buckets.is_some())],
            [
                (
                    if position_keys.is_some() { "position_keys" } else { "position_queries" },
                    positions,
                ),
                ("position_buckets", self.position_buckets.is_some()),
            ],
            [
                ("segment_scores", self.segment_scores.is_some()),
                ("segments", self.segments.is_some()),
            ],
        ] {
            together(op, pair)?;
        }
        for (given, name, needed, by) in [
            (position_query.is_some(), "position_query", position_keys.is_some(), "position_keys"),
            (self.key_segments.is_some(), "key_segments", self.segments.is_some(), "segments"),
            (self.key_order.is_some(), "key_order", self.order.is_some(), "order"),
            (self.order_inclusive, "order_inclusive", self.order.is_some(), "order"),
        ] {
            if given && !needed {
                fail!(ET_ERR_INVALID_ARGUMENT, "{op}: {name} is given without {by}");
            }
        }
        if let Some(bias) = bias {
            check_columns(op, ["bias", "[buckets, heads]"], bias, heads)?;
        }
        let tables = [("position_keys", position_keys), ("position_queries", position_queries)];
        for (name, table) in tables {
            table.map_or(Ok(()), |x| check_columns(op, [name, "[P, heads * d]"], x, width))?;
        }
        if let (Some(keys), Some(queries)) = (position_keys, position_queries) {
            check_shape(op, "position_queries (as position_keys)", queries, keys.dims())?;
        }
        if let Some(x) = position_query {
            check_shape(op, "position_query", x, &[queries, width])?;
        }
        if let Some(x) = self.segment_scores {
            check_shape(op, "segment_scores", x, &[queries, heads, 2])?;
        }
        let both = [queries, keys];
        let map = |name: &str, x: Option<&Tensor>| x.map(|x| integers(op, name, x)).transpose();
        Ok(Integers {
            window: self.window,
            bias_buckets: map("bias_buckets", self.bias_buckets)?,
            position_buckets: map("position_buckets", self.position_buckets)?,
            segments: self
                .segments
                .map(|x| numbers(op, ["segments", "key_segments"], x, self.key_segments, both))
                .transpose()?,
            order: self
                .order
                .map(|x| numbers(op, ["order", "key_order"], x, self.key_order, both))
                .transpose()?,
            order_inclusive: self.order_inclusive,
        })
    }

    /// All inputs that have gradients, in the order in which they are recorded.
    pub(super) fn with(&self, [query, key, value]: [&'a Tensor; 3]) -> [Option<&'a Tensor>; 8] {
        [
            Some(query),
            Some(key),
            Some(value),
            self.bias,
            self.position_keys,
            self.position_query,
            self.position_queries,
            self.segment_scores,
        ]
    }
}

impl Integers {
    /// Whether this is attention without terms.
    pub(super) fn is_plain(&self) -> bool {
        let Self { window, bias_buckets, position_buckets, segments, order, .. } = self;
        *window == 0
            && bias_buckets.is_none()
            && position_buckets.is_none()
            && segments.is_none()
            && order.is_none()
    }

    pub(super) fn window(&self) -> Option<usize> {
        (self.window > 0).then_some(self.window)
    }
}

/// The inputs that have gradients, in the order of [`Terms::with`].
pub(super) struct Inputs {
    values: [Option<Value>; 8],
}

/// The value if its rows can be read in place, else a contiguous copy.
fn readable<F: Real>(x: &Tensor) -> Result<Value> {
    match storage::read_rows::<F>(x.value())? {
        Some(_) => Ok(x.save()),
        None => dense(x.value()),
    }
}

/// Integers, if there are any.
fn read(x: &Option<Value>) -> Result<Option<Slice<'_, i64>>> {
    x.as_deref().map(storage::read::<i64>).transpose()
}

/// Those of queries and keys, if there are any.
fn pair(x: &Option<[Value; 2]>) -> Result<Option<[Slice<'_, i64>; 2]>> {
    let Some([queries, keys]) = x else { return Ok(None) };
    Ok(Some([storage::read::<i64>(queries)?, storage::read::<i64>(keys)?]))
}

/// Elements and the distance of rows.
fn slices<F: Real>(x: &Value) -> Result<(Slice<'_, F>, usize)> {
    match storage::read_rows::<F>(x)? {
        Some(rows) => Ok(rows),
        None => Ok((storage::read::<F>(x)?, x.dims()[1])),
    }
}

impl Inputs {
    pub(super) fn new<F: Real>(inputs: &[Option<Tensor>]) -> Result<Self> {
        let mut values = [const { None }; 8];
        for (index, value) in values.iter_mut().enumerate() {
            if inputs.get(index).is_none_or(Option::is_none) {
                continue;
            }
            let x = given(inputs, index)?;
            // Bias and scores of segments are read as they lie.
            *value =
                Some(if matches!(index, 3 | 7) { dense(x.value())? } else { readable::<F>(x)? });
        }
        Ok(Self { values })
    }

    fn dims(&self, index: usize) -> &[usize] {
        self.values[index].as_ref().map_or(&[0, 0], |x| x.dims())
    }

    /// Rows of queries and of keys, and columns.
    pub(super) fn sizes(&self) -> [usize; 3] {
        [self.dims(0)[0], self.dims(1)[0], self.dims(0)[1]]
    }

    /// What `f` makes of the place among the recorded inputs and of the shape of each term that is there.
    pub(super) fn terms<R>(&self, f: impl Fn(usize, &[usize]) -> Option<R>) -> [Option<R>; 5] {
        let mut recorded = 2;
        std::array::from_fn(|term| {
            let value = self.values[3 + term].as_ref()?;
            recorded += 1;
            f(recorded, value.dims())
        })
    }

    /// Calls `f` with queries, keys and values and with the terms.
    pub(super) fn read<F: Real, R>(
        &self,
        integers: &Integers,
        f: impl FnOnce([RowsView<'_, F>; 3], AttentionTerms<'_, F>) -> Result<R>,
    ) -> Result<R> {
        let mut all = [const { None }; 8];
        for (slice, value) in all.iter_mut().zip(&self.values) {
            *slice = value.as_ref().map(|x| slices::<F>(x)).transpose()?;
        }
        let rows = |index: usize| all[index].as_ref().map(|(x, stride)| RowsView::new(x, *stride));
        let flat = |index: usize| all[index].as_ref().map(|(x, _)| &**x);
        let bias_buckets = read(&integers.bias_buckets)?;
        let position_buckets = read(&integers.position_buckets)?;
        let (segments, order) = (pair(&integers.segments)?, pair(&integers.order)?);
        let bias = flat(3).zip(bias_buckets.as_deref());
        let terms = AttentionTerms {
            bias: bias.map(|(table, buckets)| DistanceBias { table, buckets }),
            positions: position_buckets.as_deref().map(|buckets| Positions {
                rows: self.dims(4)[0].max(self.dims(6)[0]),
                buckets,
                keys: rows(4),
                query: rows(5),
                queries: rows(6),
            }),
            segments: flat(7)
                .zip(segments.as_ref())
                .map(|(scores, [of_queries, of_keys])| Segments { scores, of_queries, of_keys }),
            window: integers.window(),
            order: order.as_ref().map(|[of_queries, of_keys]| Order {
                of_queries,
                of_keys,
                inclusive: integers.order_inclusive,
            }),
        };
        let [q, k, v] = [rows(0), rows(1), rows(2)].map(|x| x.unwrap_or(RowsView::new(&[], 0)));
        f([q, k, v], terms)
    }
}
