//! Sets of parameters: declaration through scopes, the arena, snapshots.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use candle_core::DType;
use easytransfer_abi::{
    ET_ARENA_GRADS, ET_ARENA_VALUES, ET_DTYPE_F32, ET_DTYPE_F64, ET_ERR_FAILED_PRECONDITION,
    ET_ERR_NOT_FOUND, et_init, et_params, et_scope,
};
use easytransfer_text::{closest, fits};

use crate::arena::{self, Arena, Members, with_real};
use crate::error::{Error, Result, fail};
use crate::handle::{Handle, tag};
use crate::init;
use crate::storage::{self, Real};
use crate::sync::lock;
use crate::tensor::Tensor;

pub use crate::param::Param;

/// First bytes of a snapshot.
const SNAPSHOT_MAGIC: &[u8; 8] = b"ETPARAM1";
/// Magic, hash of names and shapes, number of bytes that follow.
const SNAPSHOT_HEADER: usize = 24;

/// A set of parameters, or a part of one; clones are the same one.
#[derive(Clone)]
pub struct Params(Arc<Set>);

struct Set {
    seed: u64,
    dtype: DType,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    params: Vec<Param>,
    by_name: HashMap<String, usize>,
    sealed: Option<Sealed>,
}

/// The arena of a set, and the parameters in it in its order.
#[derive(Clone)]
pub(crate) struct Sealed {
    pub arena: Arc<Arena>,
    pub params: Arc<[Param]>,
    /// Which of them belong to a part of a set; all where there is none.
    pub members: Option<Arc<[bool]>>,
}

impl Sealed {
    /// The members, for the arena.
    pub fn members(&self) -> Members<'_> {
        self.members.as_deref()
    }

    /// True if parameter `index` of the arena belongs to the set.
    pub fn has(&self, index: usize) -> bool {
        self.members().is_none_or(|members| members[index])
    }
}

impl Handle for Params {
    type Abi = et_params;
    const TAG: u32 = tag(b"ETps");
    const NAME: &'static str = "parameter set";
}

/// A named place in a set where parameters are declared.
#[derive(Clone)]
pub struct Scope {
    set: Params,
    path: String,
    /// Answers with the parameters that are there instead of declaring new ones.
    again: bool,
}

impl Handle for Scope {
    type Abi = et_scope;
    const TAG: u32 = tag(b"ETsc");
    const NAME: &'static str = "scope";
}

impl Params {
    /// An empty set of element type F32 or F64 (an `ET_DTYPE_` constant). Errors: `DTYPE`.
    pub fn new(seed: u64, dtype: i32) -> Result<Self> {
        let dtype = match dtype {
            ET_DTYPE_F32 => DType::F32,
            ET_DTYPE_F64 => DType::F64,
            other => fail!(ET_ERR_DTYPE, "a parameter set has type F32 or F64, found {other}"),
        };
        Ok(Self(Arc::new(Set { seed, dtype, inner: Mutex::default() })))
    }

    /// The outermost scope.
    pub fn root(&self) -> Scope {
        Scope { set: self.clone(), path: String::new(), again: false }
    }

    /// The outermost scope for one more instance of the model that declared the set: what it declares must be there,
    /// with the same shape, and is what it gets. So instances share values, gradients and packed copies.
    pub fn again(&self) -> Scope {
        Scope { again: true, ..self.root() }
    }

    /// True if nobody has written to a parameter since it was declared.
    pub fn is_untouched(&self) -> bool {
        self.all().iter().all(Param::is_untouched)
    }

    /// True if both have the same parameters by name and shape, in the same order.
    pub fn has_layout_of(&self, other: &Params) -> bool {
        self.layout_hash(&self.all()) == other.layout_hash(&other.all())
    }

    fn declared(&self, name: &str, shape: &[usize]) -> Result<Param> {
        let param = self.find(name)?;
        if param.shape() != shape {
            fail!(
                ET_ERR_SHAPE,
                "parameter {name:?} was declared with shape {:?}, found {shape:?}",
                param.shape()
            );
        }
        Ok(param)
    }

    /// Element type of the set.
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }

    /// Number of parameters.
    pub fn len(&self) -> usize {
        lock(&self.0.inner).params.len()
    }

    /// True without parameters.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Parameter `index` in declaration order.
    pub fn at(&self, index: usize) -> Option<Param> {
        lock(&self.0.inner).params.get(index).cloned()
    }

    /// All parameters in declaration order.
    pub fn all(&self) -> Vec<Param> {
        lock(&self.0.inner).params.clone()
    }

    /// Parameter by name. Errors: `NOT_FOUND` naming the nearest name.
    pub fn find(&self, name: &str) -> Result<Param> {
        let inner = lock(&self.0.inner);
        if let Some(&index) = inner.by_name.get(name) {
            return Ok(inner.params[index].clone());
        }
        let known = inner.params.iter().map(Param::name);
        let near = match closest(name, known) {
            Some(near) => format!("; the nearest name is {near:?}"),
            None => "; the set is empty".into(),
        };
        Err(Error::new(ET_ERR_NOT_FOUND, format!("there is no parameter {name:?}{near}")))
    }

    fn declare(&self, name: String, shape: &[usize], init: et_init) -> Result<Param> {
        init::check(&init).map_err(|error| error.context(format!("parameter {name:?}")))?;
        crate::tensor::shape_len(&name, shape)?;
        let mut inner = lock(&self.0.inner);
        if inner.sealed.is_some() {
            fail!(
                ET_ERR_FAILED_PRECONDITION,
                "parameter {name:?} cannot be declared: the set is sealed"
            );
        }
        if inner.by_name.contains_key(&name) {
            fail!(ET_ERR_ALREADY_EXISTS, "there is a parameter {name:?} already");
        }
        let param = Param::declare(name.clone(), shape.to_vec(), self.0.dtype, self.0.seed, init);
        let index = inner.params.len();
        inner.by_name.insert(name, index);
        inner.params.push(param.clone());
        Ok(param)
    }

    /// Moves trainable parameters into the arena, in declaration order; does nothing the second time.
    pub fn seal(&self) -> Result<()> {
        let mut inner = lock(&self.0.inner);
        if inner.sealed.is_some() {
            return Ok(());
        }
        let moved: Arc<[Param]> =
            inner.params.iter().filter(|param| param.is_trainable()).cloned().collect();
        let (spans, len) = arena::lay_out(moved.iter().map(Param::elem_count));
        let arena = with_real!(self.0.dtype, F => {
            arena::check_room::<F>("parameters and gradients", len.saturating_mul(2))?;
            let mut values = vec![F::default(); len];
            for (param, span) in moved.iter().zip(&spans) {
                param.copy_into(&mut values[span.start..span.start + span.len])?;
            }
            Arc::new(Arena::new(values, spans)?)
        });
        for (index, param) in moved.iter().enumerate() {
            param.seal(Some((arena.clone(), index)))?;
        }
        for param in inner.params.iter().filter(|param| !param.is_trainable()) {
            param.seal(None)?;
        }
        inner.sealed = Some(Sealed { arena, params: moved, members: None });
        Ok(())
    }

    /// The parameters whose names fit one of `patterns`, in which `*` stands for any text, as a set that shares values
    /// and gradients; steps, norms and everything else that is done to it concern these alone. Errors: `NOT_FOUND`
    /// naming a pattern that fits no trainable parameter, `FAILED_PRECONDITION` before `seal`, `INVALID_ARGUMENT`
    /// without patterns.
    pub fn part(&self, patterns: &[&str]) -> Result<Self> {
        let inner = lock(&self.0.inner);
        let Some(sealed) = &inner.sealed else { return Err(not_sealed()) };
        if patterns.is_empty() {
            fail!(ET_ERR_INVALID_ARGUMENT, "a part of a parameter set needs at least one pattern");
        }
        let trainable =
            || sealed.params.iter().enumerate().filter(|(i, p)| sealed.has(*i) && p.is_trainable());
        for pattern in patterns {
            if !trainable().any(|(_, param)| fits(pattern, param.name())) {
                let near = closest(pattern, trainable().map(|(_, param)| param.name()));
                let near = near.map_or_else(
                    || "there is none".into(),
                    |near| format!("the nearest name is {near:?}"),
                );
                fail!(
                    ET_ERR_NOT_FOUND,
                    "the pattern {pattern:?} fits no trainable parameter; {near}"
                );
            }
        }
        let is_member = |param: &Param| patterns.iter().any(|pattern| fits(pattern, param.name()));
        let each = sealed.params.iter().enumerate();
        let members = each.map(|(index, param)| sealed.has(index) && is_member(param)).collect();
        let params: Vec<Param> = inner.params.iter().filter(|p| is_member(p)).cloned().collect();
        let names = params.iter().enumerate();
        let by_name = names.map(|(index, param)| (param.name().to_owned(), index)).collect();
        let sealed = Some(Sealed { members: Some(members), ..sealed.clone() });
        let inner = Mutex::new(Inner { params, by_name, sealed });
        Ok(Self(Arc::new(Set { seed: self.0.seed, dtype: self.0.dtype, inner })))
    }

    /// The arena, once sealed.
    pub(crate) fn sealed(&self) -> Option<Sealed> {
        lock(&self.0.inner).sealed.clone()
    }

    /// The arena. Errors: `FAILED_PRECONDITION` before `seal`.
    pub(crate) fn expect_sealed(&self) -> Result<Sealed> {
        self.sealed().ok_or_else(not_sealed)
    }

    /// The arena as a tensor [`Params::arena_len`] that shares its memory: the values or the gradients, an `ET_ARENA_`
    /// constant. Who writes values asks anew for each write, because it makes copies of them stale. Gradients are
    /// settled, and zero where no pass has been; those of trainable parameters of the set count as present from then
    /// on. Errors: `FAILED_PRECONDITION` before `seal`, `INVALID_ARGUMENT` for other constants.
    pub fn arena_view(&self, which: i32) -> Result<Tensor> {
        let sealed = self.expect_sealed()?;
        let counts = |index: usize| sealed.has(index) && sealed.params[index].is_trainable();
        let raw = match which {
            ET_ARENA_VALUES => {
                sealed.params.iter().for_each(Param::written);
                &sealed.arena.values
            }
            ET_ARENA_GRADS => sealed.arena.open_grads(counts)?,
            other => fail!(
                ET_ERR_INVALID_ARGUMENT,
                "{other} is no arena, expected ET_ARENA_VALUES or ET_ARENA_GRADS"
            ),
        };
        Ok(Tensor::new(raw.clone()))
    }

    /// Number of elements in the arena, gaps between parameters and, for a part, the other parameters included; 0
    /// before `seal`.
    pub fn arena_len(&self) -> usize {
        self.sealed().map_or(0, |sealed| sealed.arena.len())
    }

    /// Forgets all gradients.
    pub fn zero_grads(&self) {
        if let Some(sealed) = self.sealed() {
            sealed.arena.forget_all(sealed.members());
        }
    }

    /// Euclidean norm of all gradients together, summed in the order of the arena; 0 when there are none.
    pub fn grad_norm(&self) -> Result<f64> {
        let Some(sealed) = self.sealed() else { return Ok(0.0) };
        Ok(sealed.arena.grad_square_sum(sealed.members())?.sqrt())
    }

    /// Multiplies all gradients by limit / (norm + 1e-6) if their norm is above `limit` (Pascanu et al. 2013); gives
    /// the norm before that, a scalar F64 that nobody has waited for. Errors: `INVALID_ARGUMENT` for a limit that is
    /// not positive.
    pub fn clip_grads(&self, limit: f64) -> Result<Tensor> {
        if limit.is_nan() || limit <= 0.0 {
            fail!(ET_ERR_INVALID_ARGUMENT, "clip_grads: the limit must be positive, found {limit}");
        }
        let norm = match self.sealed() {
            Some(sealed) => sealed.arena.clip(limit, sealed.members())?,
            None => storage::tensor_from_vec(vec![0f64], ())?,
        };
        Ok(Tensor::new(norm))
    }

    /// Multiplies all gradients.
    pub fn scale_grads(&self, factor: f64) -> Result<()> {
        if let Some(sealed) = self.sealed() {
            sealed.arena.scale_grads(factor, sealed.members())?;
        }
        Ok(())
    }

    /// A copy of all values, trainable or not, for [`Params::restore`].
    pub fn snapshot(&self) -> Result<Vec<u8>> {
        let params = self.all();
        let size = self.0.dtype.size_in_bytes();
        let body = params.iter().map(Param::elem_count).sum::<usize>() * size;
        crate::pool::trim_pool();
        let mut bytes = Vec::with_capacity(SNAPSHOT_HEADER + body);
        bytes.extend_from_slice(SNAPSHOT_MAGIC);
        bytes.extend_from_slice(&self.layout_hash(&params).to_le_bytes());
        bytes.extend_from_slice(&(body as u64).to_le_bytes());
        for param in &params {
            let raw = param.raw()?;
            with_real!(self.0.dtype, F => {
                storage::with::<F, _>(&raw, |values| F::extend_bytes(values, &mut bytes))?;
            });
        }
        Ok(bytes)
    }

    /// Sets all values from a snapshot of the same set. Errors: `SHAPE` when it belongs to another set or is damaged;
    /// then nothing changes.
    pub fn restore(&self, snapshot: &[u8]) -> Result<()> {
        let params = self.all();
        let size = self.0.dtype.size_in_bytes();
        let body_len = params.iter().map(Param::elem_count).sum::<usize>() * size;
        let Some((header, body)) = snapshot.split_at_checked(SNAPSHOT_HEADER) else {
            fail!(
                ET_ERR_SHAPE,
                "a snapshot has at least {SNAPSHOT_HEADER} bytes, found {}",
                snapshot.len()
            );
        };
        if !header.starts_with(SNAPSHOT_MAGIC) {
            fail!(ET_ERR_SHAPE, "the buffer is not a snapshot of parameters");
        }
        if header[8..16] != self.layout_hash(&params).to_le_bytes() {
            fail!(ET_ERR_SHAPE, "the snapshot belongs to a set with other names, shapes or type");
        }
        if header[16..] != (body_len as u64).to_le_bytes() || body.len() != body_len {
            fail!(
                ET_ERR_SHAPE,
                "the snapshot must hold {body_len} bytes of values, found {}",
                body.len()
            );
        }
        let mut rest = body;
        for param in &params {
            let (bytes, after) = rest.split_at(param.elem_count() * size);
            rest = after;
            with_real!(self.0.dtype, F => restore_one::<F>(param, bytes)?);
        }
        Ok(())
    }

    /// Hash of type, names and shapes.
    fn layout_hash(&self, params: &[Param]) -> u64 {
        let mut text = self.0.dtype.as_str().to_string();
        for param in params {
            text.push_str(&format!("\n{} {:?}", param.name(), param.shape()));
        }
        init::fnv1a64(text.as_bytes())
    }
}

fn not_sealed() -> Error {
    let message = "the parameter set is not sealed: call params_seal first";
    Error::new(ET_ERR_FAILED_PRECONDITION, message)
}

fn restore_one<F: Real>(param: &Param, bytes: &[u8]) -> Result<()> {
    param.restore::<F>(bytes)
}

impl Scope {
    /// Dotted path; empty for the root.
    pub fn path(&self) -> &str {
        &self.path
    }

    fn join(&self, name: &str) -> Result<String> {
        if name.split('.').any(str::is_empty) {
            fail!(
                ET_ERR_INVALID_ARGUMENT,
                "{name:?} below {:?} is no name: expected parts of at least one character between dots",
                self.path
            );
        }
        Ok(if self.path.is_empty() { name.into() } else { format!("{}.{name}", self.path) })
    }

    /// A scope below this one; `name` may be dotted. Errors: `INVALID_ARGUMENT` for empty parts.
    pub fn child(&self, name: &str) -> Result<Scope> {
        Ok(Scope { path: self.join(name)?, ..self.clone() })
    }

    /// Declares a trainable parameter. Errors: `ALREADY_EXISTS`, `FAILED_PRECONDITION` after `seal`,
    /// `INVALID_ARGUMENT`.
    pub fn param(&self, name: &str, shape: &[usize], init: et_init) -> Result<Param> {
        let name = self.join(name)?;
        if self.again {
            self.set.declared(&name, shape)
        } else {
            self.set.declare(name, shape, init)
        }
    }

    /// The set that this scope declares in.
    pub fn params(&self) -> &Params {
        &self.set
    }
}
