//! The profiler: which operation took how long, with shapes and arithmetic, forward and backward.
//!
//! Every operation passes a slot of [`crate::tables`] on its way in and the loop of [`crate::tape::backward`] on its
//! way back; those places open a [`Span`]. While nothing is profiled a span costs one relaxed load. While profiling,
//! each thread writes to a buffer of its own; the number of kept events is bounded, and what does not fit is counted,
//! not lost from the summary.

mod card;
mod flops;
mod trace;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use crate::device::Mark;
use crate::error::Result;
use crate::sync::lock;
use crate::tensor::Tensor;

pub use trace::{summary, trace};

/// Events that are kept unless the caller says otherwise; about 100 MiB.
pub const DEFAULT_CAPACITY: usize = 500_000;
/// Lines of the summary of one thread; operations beyond them count without their shapes.
const MOST_TOTALS: usize = 4096;

static ON: AtomicBool = AtomicBool::new(false);
/// Recordings are numbered: spans of an earlier one are not written to a later one.
static RECORDING: AtomicU64 = AtomicU64::new(0);
static KEPT: AtomicUsize = AtomicUsize::new(0);
static CAPACITY: AtomicUsize = AtomicUsize::new(0);
static DROPPED: AtomicU64 = AtomicU64::new(0);
/// When the recording began and ended, in nanoseconds of [`now`].
static BEGAN: AtomicU64 = AtomicU64::new(0);
static ENDED: AtomicU64 = AtomicU64::new(0);
static THREADS: Mutex<Vec<Arc<Recorded>>> = Mutex::new(Vec::new());

/// Shapes of an operation's inputs and what it computes, shared by its forward and its backward event.
#[derive(Debug)]
pub struct OpCall {
    /// The slot, which says how to count.
    slot: &'static str,
    /// The operation; one slot may have many.
    op: Cow<'static, str>,
    /// For each input its number of axes, then its extents.
    dims: Vec<u32>,
    /// Floating point operations of the forward computation.
    flop: f64,
}

impl OpCall {
    /// The shapes of the inputs.
    fn shapes(&self) -> Vec<&[u32]> {
        flops::shapes(&self.dims)
    }
}

/// A finished span.
struct Event {
    category: Cow<'static, str>,
    name: Cow<'static, str>,
    start: u64,
    duration: u64,
    call: Option<Arc<OpCall>>,
    flop: f64,
    notes: Vec<(Cow<'static, str>, f64)>,
    /// Its number among the spans that a card timed.
    timed: Option<usize>,
}

/// A span that is not finished.
struct Open {
    recording: u64,
    category: Cow<'static, str>,
    name: Cow<'static, str>,
    /// The slot, for operations of the engine.
    slot: Option<&'static str>,
    start: u64,
    /// Time of finished spans inside.
    inside: u64,
    dims: Vec<u32>,
    call: Option<Arc<OpCall>>,
    flop: f64,
    notes: Vec<(Cow<'static, str>, f64)>,
    /// Where the card's stream was, and the timed spans inside.
    mark: Option<Mark>,
    timed: Vec<usize>,
}

/// What a summary adds up.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    category: Cow<'static, str>,
    name: Cow<'static, str>,
    /// The weight's shape, where it says which of many layers this is.
    detail: Vec<u32>,
}

#[derive(Clone, Copy, Default)]
struct Total {
    calls: u64,
    own: u64,
    whole: u64,
    flop: f64,
    /// Milliseconds of a card without what ran inside.
    card: f64,
}

/// What one thread recorded.
struct Recorded {
    number: usize,
    thread: String,
    data: Mutex<Data>,
}

#[derive(Default)]
struct Data {
    events: Vec<Event>,
    totals: HashMap<Key, Total>,
    timed: card::Spans<Mark>,
}

#[derive(Default)]
struct Local {
    recorded: Option<Arc<Recorded>>,
    open: Vec<Open>,
}

thread_local! {
    static LOCAL: RefCell<Local> = RefCell::default();
}

/// True while a recording runs.
#[inline]
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Nanoseconds since the first use of the profiler by this process.
fn now() -> u64 {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    FIRST.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// Starts a recording that keeps at most `capacity` events (0: [`DEFAULT_CAPACITY`]); an earlier one is forgotten.
pub fn start(capacity: usize) {
    let threads = lock(&THREADS);
    ON.store(false, Ordering::SeqCst);
    RECORDING.fetch_add(1, Ordering::SeqCst);
    for thread in threads.iter() {
        *lock(&thread.data) = Data::default();
    }
    CAPACITY.store(if capacity == 0 { DEFAULT_CAPACITY } else { capacity }, Ordering::SeqCst);
    KEPT.store(0, Ordering::SeqCst);
    DROPPED.store(0, Ordering::SeqCst);
    if let Some(device) = crate::device::active() {
        device.restart_marks();
    }
    let begin = now();
    BEGAN.store(begin, Ordering::SeqCst);
    ENDED.store(begin, Ordering::SeqCst);
    ON.store(true, Ordering::SeqCst);
}

/// Ends the recording; what it holds stays until the next [`start`]. Does nothing while none runs.
pub fn stop() {
    if ON.swap(false, Ordering::SeqCst) {
        ENDED.store(now(), Ordering::SeqCst);
    }
}

/// Time from its making to its drop, written to the recording that ran when it was made.
#[must_use = "a span measures until it is dropped"]
pub struct Span {
    /// How many spans were open on this thread before this one; `None` for one that measures nothing.
    depth: Option<usize>,
    /// The stack of open spans belongs to the thread.
    _thread: std::marker::PhantomData<*const ()>,
}

impl Span {
    /// False if it measures nothing, so that nothing need be said of it.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.depth.is_some()
    }
}

impl Drop for Span {
    #[inline]
    fn drop(&mut self) {
        if let Some(depth) = self.depth {
            end_at(depth);
        }
    }
}

fn off() -> Span {
    Span { depth: None, _thread: std::marker::PhantomData }
}

/// A span around the forward computation of an operation.
#[inline]
pub fn op(name: &'static str) -> Span {
    if !is_on() {
        return off();
    }
    begin_op(name)
}

/// Kept out of the slots, which are short while nothing is profiled.
#[cold]
#[inline(never)]
fn begin_op(name: &'static str) -> Span {
    begin("forward".into(), name.into(), Some(name), None, 0.0)
}

/// A span around work of the engine that is no operation on the tape.
#[inline]
pub fn work(name: &'static str) -> Span {
    if !is_on() {
        return off();
    }
    begin("engine".into(), name.into(), None, None, 0.0)
}

/// A span around the backward computation of an operation. `wants` says for each input whether its gradient is wanted.
#[inline]
pub fn backward(
    name: &'static str,
    call: &Option<Arc<OpCall>>,
    wants: impl Fn(usize) -> bool,
) -> Span {
    if !is_on() {
        return off();
    }
    // One call of a slot may put casts on the tape besides the operation; the arithmetic is the operation's.
    let flop = call
        .as_ref()
        .filter(|call| call.op == name)
        .map_or(0.0, |call| flops::backward(call.slot, call.flop, wants(0), wants(1)));
    begin("backward".into(), name.into(), None, call.clone(), flop)
}

/// Opens a span; [`end`] closes it by the number that this answers with. 0 while nothing is profiled.
pub fn begin_named(category: &str, name: &str) -> u64 {
    if !is_on() {
        return 0;
    }
    let mut span = begin(category.to_owned().into(), name.to_owned().into(), None, None, 0.0);
    span.depth.take().map_or(0, |depth| depth as u64 + 1)
}

/// Closes a span of this thread, and those that were opened inside it and left open. 0 does nothing.
pub fn end(span: u64) {
    if let Some(depth) = span.checked_sub(1) {
        end_at(depth as usize);
    }
}

/// Adds a number to an open span of this thread. Nothing happens for 0 or a span that was closed.
pub fn note(span: u64, key: &str, value: f64) {
    let Some(depth) = span.checked_sub(1) else { return };
    LOCAL.with_borrow_mut(|local| {
        if let Some(open) = local.open.get_mut(depth as usize) {
            open.notes.push((key.to_owned().into(), value));
        }
    });
}

fn begin(
    category: Cow<'static, str>,
    name: Cow<'static, str>,
    slot: Option<&'static str>,
    call: Option<Arc<OpCall>>,
    flop: f64,
) -> Span {
    let recording = RECORDING.load(Ordering::Relaxed);
    // What a program or a plugin says is about the host.
    let computes = matches!(&*category, "forward" | "backward" | "engine");
    let mark = if computes { card::mark() } else { None };
    let depth = LOCAL.with_borrow_mut(|local| {
        local.open.push(Open {
            recording,
            category,
            name,
            slot,
            start: now(),
            inside: 0,
            dims: Vec::new(),
            call,
            flop,
            notes: Vec::new(),
            mark,
            timed: Vec::new(),
        });
        local.open.len() - 1
    });
    Span { depth: Some(depth), _thread: std::marker::PhantomData }
}

/// Adds an input's shape to the innermost span of this thread.
#[inline]
pub fn input(x: &Tensor) {
    if is_on() {
        input_dims(x.dims());
    }
}

/// [`input`] where there is one.
#[inline]
pub fn input_optional(x: Option<&Tensor>) {
    if let Some(x) = x {
        input(x);
    }
}

#[cold]
#[inline(never)]
fn input_dims(dims: &[usize]) {
    LOCAL.with_borrow_mut(|local| {
        if let Some(open) = local.open.last_mut() {
            let extent = |&n: &usize| u32::try_from(n).unwrap_or(u32::MAX);
            open.dims.push(dims.len() as u32);
            open.dims.extend(dims.iter().map(extent));
        }
    });
}

/// Gives the innermost span of this thread the name of one operation of many that its slot has; an operation without
/// a name changes nothing.
pub fn rename(op: i32, name: fn(i32) -> Result<&'static str>) {
    let Ok(name) = name(op) else { return };
    LOCAL.with_borrow_mut(|local| {
        if let Some(open) = local.open.last_mut() {
            open.name = name.into();
        }
    });
}

/// Says how many floating point operations the innermost span of this thread computes, where its shapes do not tell.
pub fn flop(count: impl FnOnce() -> f64) {
    if !is_on() {
        return;
    }
    let count = count();
    LOCAL.with_borrow_mut(|local| {
        if let Some(open) = local.open.last_mut() {
            open.flop = count;
        }
    });
}

impl Open {
    /// The operation's shapes and arithmetic; made once.
    fn call(&mut self) -> Option<Arc<OpCall>> {
        if self.call.is_none()
            && let Some(slot) = self.slot
        {
            let dims = std::mem::take(&mut self.dims);
            let flop = if self.flop > 0.0 {
                self.flop
            } else {
                flops::forward(slot, &flops::shapes(&dims))
            };
            self.flop = flop;
            self.call = Some(Arc::new(OpCall { slot, op: self.name.clone(), dims, flop }));
        }
        self.call.clone()
    }
}

/// What the operation that runs on this thread is, for the node that it puts on the tape; `None` while nothing is
/// profiled.
#[inline]
pub fn current() -> Option<Arc<OpCall>> {
    if !is_on() {
        return None;
    }
    LOCAL.with_borrow_mut(|local| local.open.last_mut().and_then(Open::call))
}

/// The buffer of this thread; a thread's first span registers it.
fn recorded(local: &mut Local) -> Arc<Recorded> {
    if let Some(recorded) = &local.recorded {
        return recorded.clone();
    }
    let mut threads = lock(&THREADS);
    // Buffers of ended threads stay for the trace until a recording that finds them empty.
    threads.retain(|thread| Arc::strong_count(thread) > 1 || !lock(&thread.data).totals.is_empty());
    static NUMBER: AtomicUsize = AtomicUsize::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let thread = std::thread::current().name().unwrap_or("").to_owned();
    let recorded = Arc::new(Recorded { number, thread, data: Mutex::default() });
    threads.push(recorded.clone());
    local.recorded = Some(recorded.clone());
    recorded
}

/// Closes the spans of this thread from the innermost to the one at `depth`.
fn end_at(depth: usize) {
    let end = now();
    LOCAL.with_borrow_mut(|local| {
        while local.open.len() > depth {
            // The loop's condition leaves at least one.
            let Some(mut open) = local.open.pop() else { return };
            let call = open.call();
            let duration = end.saturating_sub(open.start);
            if let Some(outer) = local.open.last_mut() {
                outer.inside += duration;
            }
            if !is_on() || open.recording != RECORDING.load(Ordering::Relaxed) {
                continue;
            }
            let marks = open.mark.take().and_then(|begin| Some((begin, card::mark()?)));
            let recorded = recorded(local);
            let mut data = lock(&recorded.data);
            let key = data.add(&open, call.as_deref(), duration);
            let inside = std::mem::take(&mut open.timed);
            let timed = marks.map(|(begin, end)| data.timed.add(key, begin, end, inside));
            if let (Some(timed), Some(outer)) = (timed, local.open.last_mut())
                && outer.mark.is_some()
            {
                outer.timed.push(timed);
            }
            if KEPT.fetch_add(1, Ordering::Relaxed) >= CAPACITY.load(Ordering::Relaxed) {
                KEPT.fetch_sub(1, Ordering::Relaxed);
                DROPPED.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let Open { category, name, start, flop, notes, .. } = open;
            data.events.push(Event { category, name, start, duration, call, flop, notes, timed });
        }
    });
}

impl Data {
    /// Adds a span to the sums and answers with its key there.
    fn add(&mut self, open: &Open, call: Option<&OpCall>, duration: u64) -> Key {
        let detail = call.map_or_else(Vec::new, |call| flops::detail(call.slot, &call.shapes()));
        let mut key = Key { category: open.category.clone(), name: open.name.clone(), detail };
        if self.totals.len() >= MOST_TOTALS && !self.totals.contains_key(&key) {
            key.detail = Vec::new();
            if self.totals.len() >= 2 * MOST_TOTALS {
                key.name = "other".into();
            }
        }
        let total = self.totals.entry(key.clone()).or_default();
        total.calls += 1;
        total.whole += duration;
        total.own += duration.saturating_sub(open.inside);
        total.flop += open.flop;
        key
    }
}
