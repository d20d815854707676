//! The tape: what was computed from what, and the pass backwards over it.
//!
//! A [`Node`] is one recorded operation with any number of inputs and outputs. Nodes get increasing numbers, and an
//! operation's inputs exist before it does, so visiting nodes by falling number visits every consumer before its
//! producers; the pass needs no recursion. A node gives up its backward function, and with it all that it saved, when
//! it is visited.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Tensor as Raw};

use crate::device;
use crate::error::{Result, fail};
use crate::kernels::elementwise::{self, add_assign};
use crate::profile;
use crate::storage::{self, Value};
use crate::tensor::Tensor;
use crate::versions::{self, Versions};

/// Where gradients end: a parameter or a leaf made by the user.
pub trait Leaf: Send + Sync {
    /// The type in which gradients must come; `None` takes them as they are.
    fn dtype(&self) -> Option<DType> {
        None
    }
    /// Adds a gradient; it has the shape and type of the leaf's value.
    fn accumulate(&self, grad: &Raw) -> Result<()>;
    /// Lets an operation write into the gradient's memory itself: calls `f(slice, first)`, where `first` means that
    /// the slice holds nothing yet and must be overwritten instead of added to. `Ok(false)` when there is no such
    /// memory; then `f` was not called.
    fn accumulate_f32(&self, f: &mut dyn FnMut(&mut [f32], bool)) -> Result<bool>;
    /// The same for memory on a device: `f(view, first)` puts the work that writes the contiguous `view` on the
    /// stream.
    fn accumulate_view(&self, _f: &mut dyn FnMut(&Raw, bool) -> Result<()>) -> Result<bool> {
        Ok(false)
    }
    /// Lets an operation add to some rows (ascending, each once) of `width` elements: calls `f(slice)`, in which
    /// those rows may be added to and others must be left alone. `Ok(false)` when the leaf cannot; then `f` was not
    /// called.
    fn accumulate_rows_f32(
        &self,
        _width: usize,
        _rows: &[u32],
        _f: &mut dyn FnMut(&mut [f32]),
    ) -> Result<bool> {
        Ok(false)
    }
}

/// Where the gradient of a value goes.
#[derive(Clone)]
pub enum Edge {
    /// Output `index` of a recorded operation.
    Node {
        /// The operation.
        node: Arc<Node>,
        /// Which of its outputs.
        index: usize,
    },
    /// A leaf.
    Leaf(Arc<dyn Leaf>),
    /// A value of a segment's first run, in which nothing was kept; see [`crate::segment`]. It says that the value
    /// depends on something tracked, and no gradient can go there.
    Dropped,
}

/// The backward function of an operation: reads the gradients of its outputs and gives those of its inputs.
pub type BackwardFn = Box<dyn FnOnce(&mut Pass<'_>) -> Result<()> + Send>;

struct Recorded {
    inputs: Vec<Option<Edge>>,
    /// What the backward function reads of parameters.
    versions: Versions,
    backward: BackwardFn,
}

/// One recorded operation.
pub struct Node {
    id: u64,
    op: &'static str,
    /// Types of the outputs, in which gradients come.
    outputs: Vec<DType>,
    /// The backward function also reads gradients of f32 that are kept in bf16 or f16.
    reads_narrow: bool,
    /// What the profiler knows of the call that recorded this.
    call: Option<Arc<profile::OpCall>>,
    /// `None` once the backward pass was here.
    recorded: Mutex<Option<Recorded>>,
}

impl Node {
    /// Records an operation with outputs of these types. `inputs[i]` is `None` where no gradient is wanted.
    pub fn new(
        op: &'static str,
        inputs: Vec<Option<Edge>>,
        versions: Versions,
        outputs: Vec<DType>,
        reads_narrow: bool,
        backward: BackwardFn,
    ) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            op,
            outputs,
            reads_narrow,
            call: profile::current(),
            recorded: Mutex::new(Some(Recorded { inputs, versions, backward })),
        })
    }

    fn take(&self) -> Option<Recorded> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Node {
    /// Drops the nodes that only this one holds without recursion: a long chain would overflow the stack.
    fn drop(&mut self) {
        let mut open: Vec<Recorded> = self.take().into_iter().collect();
        while let Some(recorded) = open.pop() {
            for edge in recorded.inputs.into_iter().flatten() {
                if let Edge::Node { node, .. } = edge
                    && let Some(node) = Arc::into_inner(node)
                {
                    open.extend(node.take());
                }
            }
        }
    }
}

thread_local! {
    static PAUSED: Cell<u32> = const { Cell::new(0) };
    static DROPPING: Cell<bool> = const { Cell::new(false) };
}

/// True if operations on this thread record themselves.
pub fn is_recording() -> bool {
    PAUSED.get() == 0
}

/// Stops recording on this thread until the matching [`resume`].
pub fn pause() {
    PAUSED.set(PAUSED.get().saturating_add(1));
}

/// Ends the innermost [`pause`] of this thread; does nothing without one.
pub fn resume() {
    PAUSED.set(PAUSED.get().saturating_sub(1));
}

/// Keeps recording off while it lives, also when a panic passes.
pub struct Paused(());

impl Paused {
    /// Calls [`pause`].
    pub fn new() -> Self {
        pause();
        Self(())
    }
}

impl Default for Paused {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        resume();
    }
}

/// Sets a flag of this thread for as long as it lives, also when a panic passes.
pub struct Switched<T: Copy + 'static> {
    cell: &'static std::thread::LocalKey<Cell<T>>,
    before: T,
}

impl<T: Copy + 'static> Switched<T> {
    fn new(cell: &'static std::thread::LocalKey<Cell<T>>, value: T) -> Self {
        Self { cell, before: cell.replace(value) }
    }
}

impl<T: Copy + 'static> Drop for Switched<T> {
    fn drop(&mut self) {
        self.cell.set(self.before);
    }
}

/// While the result lives, operations on this thread go the way of recorded ones, and what they would keep is dropped
/// at once.
pub fn dropping() -> Switched<bool> {
    Switched::new(&DROPPING, true)
}

/// True while [`dropping`]'s result lives.
pub fn is_dropping() -> bool {
    DROPPING.get()
}

/// While the result lives, operations on this thread record themselves, whatever [`pause`] said before.
pub fn recording() -> Switched<u32> {
    Switched::new(&PAUSED, 0)
}

/// True if an operation on these inputs would be recorded.
pub fn records(inputs: &[&Tensor]) -> bool {
    is_recording() && inputs.iter().any(|input| input.is_tracked())
}

/// True if an operation on these inputs should keep what its backward pass needs; else [`record`] drops that
/// function, if it is given one.
pub fn keeps(inputs: &[&Tensor]) -> bool {
    records(inputs) && !is_dropping()
}

/// Makes the outputs of an operation, recorded if [`records`] says so. Integer outputs are never tracked.
pub fn record(
    op: &'static str,
    inputs: &[&Tensor],
    outputs: Vec<Raw>,
    backward: impl FnOnce(&mut Pass<'_>) -> Result<()> + Send + 'static,
) -> Vec<Tensor> {
    if !records(inputs) {
        return outputs.into_iter().map(Tensor::new).collect();
    }
    let types = outputs.iter().map(Raw::dtype).collect();
    let edge_of = edges_of(op, inputs, types, false, backward);
    outputs
        .into_iter()
        .enumerate()
        .map(|(index, value)| {
            if value.dtype().is_float() {
                Tensor::from_edge(value, edge_of(index))
            } else {
                Tensor::new(value)
            }
        })
        .collect()
}

/// Notes an operation whose inputs are tracked; gives the edge of each of its outputs.
fn edges_of(
    op: &'static str,
    inputs: &[&Tensor],
    outputs: Vec<DType>,
    reads_narrow: bool,
    backward: impl FnOnce(&mut Pass<'_>) -> Result<()> + Send + 'static,
) -> impl Fn(usize) -> Edge {
    let node = if is_dropping() {
        drop(backward);
        versions::note_inputs(inputs);
        None
    } else {
        let edges = inputs.iter().map(|input| input.edge().cloned()).collect();
        let versions = Versions::of(inputs);
        Some(Node::new(op, edges, versions, outputs, reads_narrow, Box::new(backward)))
    };
    move |index| match &node {
        Some(node) => Edge::Node { node: node.clone(), index },
        None => Edge::Dropped,
    }
}

/// [`record`] for one output.
pub fn record1(
    op: &'static str,
    inputs: &[&Tensor],
    output: impl Into<Raw>,
    backward: impl FnOnce(&mut Pass<'_>) -> Result<()> + Send + 'static,
) -> Tensor {
    // `record` returns as many outputs as it is given.
    record(op, inputs, vec![output.into()], backward).swap_remove(0)
}

/// [`record1`] for an output of f32 that may be kept in bf16 or f16, and a backward function that reads gradients
/// kept so too.
pub fn record_narrow(
    op: &'static str,
    inputs: &[&Tensor],
    output: impl Into<Raw>,
    backward: impl FnOnce(&mut Pass<'_>) -> Result<()> + Send + 'static,
) -> Tensor {
    if !records(inputs) {
        return Tensor::narrow(output.into());
    }
    let edge_of = edges_of(op, inputs, vec![DType::F32], true, backward);
    Tensor::kept(output.into(), Some(edge_of(0)))
}

struct Pending {
    node: Arc<Node>,
    grads: Vec<Option<Value>>,
}

type Queue = BTreeMap<u64, Pending>;

/// One operation's part of a backward pass.
pub struct Pass<'a> {
    grads: Vec<Option<Value>>,
    inputs: &'a [Option<Edge>],
    queue: &'a mut Queue,
}

impl Pass<'_> {
    /// True if the gradient of input `index` is wanted.
    pub fn wants(&self, index: usize) -> bool {
        matches!(self.inputs.get(index), Some(Some(_)))
    }

    /// Takes the gradient of output `index`; `None` when none arrived.
    pub fn grad(&mut self, index: usize) -> Option<Value> {
        self.grads.get_mut(index).and_then(Option::take)
    }

    /// Gives the gradient of input `index`; nothing happens where none is wanted.
    pub fn give(&mut self, index: usize, grad: impl Into<Value>) -> Result<()> {
        match self.inputs.get(index) {
            Some(Some(edge)) => give(edge, grad.into(), self.queue),
            _ => Ok(()),
        }
    }

    /// Where the gradient of input `index` goes.
    pub fn edge(&self, index: usize) -> Option<&Edge> {
        self.inputs.get(index)?.as_ref()
    }

    /// Gives a gradient to a value that is no input of this operation. Operations that were recorded after those
    /// still to be visited, such as ones recorded in this pass, are visited next.
    pub fn give_to(&mut self, edge: &Edge, grad: Value) -> Result<()> {
        give(edge, grad, self.queue)
    }

    /// If input `index` is a leaf with memory for its gradient, lets `f(slice, first)` write there and returns true.
    pub fn leaf_f32(&mut self, index: usize, f: &mut dyn FnMut(&mut [f32], bool)) -> Result<bool> {
        match self.inputs.get(index) {
            Some(Some(Edge::Leaf(leaf))) => leaf.accumulate_f32(f),
            _ => Ok(false),
        }
    }

    /// If input `index` is a leaf with memory for its gradient on a device, lets `f(view, first)` write there and
    /// returns true.
    pub fn leaf_view(
        &mut self,
        index: usize,
        f: &mut dyn FnMut(&Raw, bool) -> Result<()>,
    ) -> Result<bool> {
        match self.inputs.get(index) {
            Some(Some(Edge::Leaf(leaf))) => leaf.accumulate_view(f),
            _ => Ok(false),
        }
    }

    /// As [`Pass::leaf_f32`], for some rows of a table; see [`Leaf::accumulate_rows_f32`].
    pub fn leaf_rows_f32(
        &mut self,
        index: usize,
        width: usize,
        rows: &[u32],
        f: &mut dyn FnMut(&mut [f32]),
    ) -> Result<bool> {
        match self.inputs.get(index) {
            Some(Some(Edge::Leaf(leaf))) => leaf.accumulate_rows_f32(width, rows, f),
            _ => Ok(false),
        }
    }

    /// A gradient of input `index` that came before and that may be added to in its place: contiguous, of this type
    /// and shape, and held by nobody else.
    pub(crate) fn pending(&self, index: usize, dtype: DType, shape: &[usize]) -> Option<&Value> {
        self.waiting(index, dtype, shape).filter(|grad| device::is_host(grad))
    }

    /// `Pass::pending` for a gradient on the device.
    pub fn pending_on_device(&self, index: usize, dtype: DType, shape: &[usize]) -> Option<&Value> {
        self.waiting(index, dtype, shape).filter(|grad| !device::is_host(grad))
    }

    fn waiting(&self, index: usize, dtype: DType, shape: &[usize]) -> Option<&Value> {
        let Some(Some(Edge::Node { node, index })) = self.inputs.get(index) else { return None };
        let grad = self.queue.get(&node.id)?.grads.get(*index)?.as_ref()?;
        let fits = grad.dtype() == dtype && grad.dims() == shape;
        (fits && grad.is_contiguous() && storage::is_unique(grad)).then_some(grad)
    }

    /// The leaf that input `index` is, if it is one.
    pub fn leaf(&self, index: usize) -> Option<&Arc<dyn Leaf>> {
        match self.inputs.get(index) {
            Some(Some(Edge::Leaf(leaf))) => Some(leaf),
            _ => None,
        }
    }
}

fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::BF16 | DType::F16)
}

fn give(edge: &Edge, grad: Value, queue: &mut Queue) -> Result<()> {
    let is_f32 = match edge {
        Edge::Leaf(leaf) => leaf.dtype() == Some(DType::F32),
        Edge::Node { node, index } => !node.reads_narrow && node.outputs[*index] == DType::F32,
        Edge::Dropped => false,
    };
    let grad = match is_f32 && is_half(grad.dtype()) {
        true => Value::new(storage::widen(&grad)?),
        false => grad,
    };
    match edge {
        Edge::Leaf(leaf) => leaf.accumulate(&grad),
        Edge::Node { node, index } => {
            let pending = queue.entry(node.id).or_insert_with(|| Pending {
                node: node.clone(),
                grads: vec![None; node.outputs.len()],
            });
            let slot = &mut pending.grads[*index];
            *slot = Some(match slot.take() {
                None => grad,
                Some(sum) => add(sum, grad)?,
            });
            Ok(())
        }
        Edge::Dropped => fail!(
            ET_ERR_FAILED_PRECONDITION,
            "a gradient reached a value of a segment that runs twice that is none of its outputs: return it from the segment, or \
             train without recomputation by layer"
        ),
    }
}

/// Sum of two gradients, in the memory of one of them where nobody else uses it.
pub(crate) fn add(a: Value, b: Value) -> Result<Value> {
    // If types differ, one of them is f32 that is kept in fewer bits.
    let (a, b) = match (a.dtype() == b.dtype(), is_half(a.dtype())) {
        (true, _) => (a, b),
        (false, true) => (Value::new(storage::widen(&a)?), b),
        (false, false) => (a, Value::new(storage::widen(&b)?)),
    };
    let in_place = |into: &Value, from: &Value| -> Result<bool> {
        if !device::is_host(into)
            || !into.is_contiguous()
            || !from.is_contiguous()
            || into.dims() != from.dims()
            || !storage::is_unique(into)
        {
            return Ok(false);
        }
        match into.dtype() {
            candle_core::DType::F32 => {
                let from = storage::read::<f32>(from)?;
                storage::with_mut::<f32, _>(into, |into| add_assign(into, &from))??;
            }
            candle_core::DType::F64 => {
                let from = storage::read::<f64>(from)?;
                storage::with_mut::<f64, _>(into, |into| add_assign(into, &from))??;
            }
            _ => return Ok(false),
        }
        Ok(true)
    };
    if in_place(&a, &b)? {
        return Ok(a);
    }
    if in_place(&b, &a)? {
        return Ok(b);
    }
    if a.dtype() == DType::F32 && device::is_host(&a) && a.dims() == b.dims() {
        let (a, b) = (Value::new(a.contiguous()?), Value::new(b.contiguous()?));
        let mut sum = storage::take::<f32>(a.elem_count());
        elementwise::add(&storage::read::<f32>(&a)?, &storage::read::<f32>(&b)?, &mut sum)?;
        return Ok(Value::new(storage::tensor_from_vec(sum, a.dims().to_vec())?));
    }
    Ok(Value::new((&*a + &*b)?))
}

/// Runs the tape backwards from `loss`, whose gradient is `seed` (1 if `None`, for a loss of one element), and frees
/// what it passes.
///
/// # Errors
/// `INVALID_ARGUMENT` when nothing is tracked or a seed is missing, `SHAPE` or `DTYPE` when the seed does not fit,
/// `FAILED_PRECONDITION` when this part of the tape was passed before, or a parameter has changed since it was recorded.
pub fn backward(loss: &Tensor, seed: Option<&Tensor>) -> Result<()> {
    let Some(edge) = loss.edge() else {
        fail!(
            ET_ERR_INVALID_ARGUMENT,
            "backward: no gradient can flow into this tensor: none of what it was computed from is tracked, or recording was \
             paused"
        );
    };
    let value = loss.value();
    let seed = match seed {
        Some(seed) => {
            let seed = seed.value();
            if seed.dims() != value.dims() {
                fail!(
                    ET_ERR_SHAPE,
                    "backward: the seed must have the shape {:?} of the loss, found {:?}",
                    value.dims(),
                    seed.dims()
                );
            }
            if seed.dtype() != value.dtype() {
                fail!(
                    ET_ERR_DTYPE,
                    "backward: the seed must have the type {} of the loss, found {}",
                    value.dtype().as_str(),
                    seed.dtype().as_str()
                );
            }
            seed.clone()
        }
        None if value.elem_count() == 1 => value.ones_like()?,
        None => fail!(
            ET_ERR_INVALID_ARGUMENT,
            "backward: a loss of shape {:?} needs a seed, only one of a single element does not",
            value.dims()
        ),
    };
    crate::recompute::check_use();
    let _paused = Paused::new();
    let mut queue = Queue::new();
    give(edge, Value::new(seed), &mut queue)?;
    while let Some((_, Pending { node, grads })) = queue.pop_last() {
        let Some(Recorded { inputs, versions, backward }) = node.take() else {
            fail!(
                ET_ERR_FAILED_PRECONDITION,
                "backward: the tape at \"{}\" was freed by an earlier backward pass; add the losses and run one pass, or compute \
                 this part again",
                node.op
            );
        };
        let _span = profile::backward(node.op, &node.call, |index| {
            matches!(inputs.get(index), Some(Some(_)))
        });
        let mut pass = Pass { grads, inputs: &inputs, queue: &mut queue };
        versions
            .check()
            .and_then(|()| backward(&mut pass))
            .map_err(|error| error.context(format!("backward of {}", node.op)))?;
    }
    crate::pool::end_step();
    Ok(())
}
