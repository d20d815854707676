//! Named parameters in arenas, and the scopes in which models declare them.

use crate::host::{ask, call, handle, lent_mut, never_lent_mut, tables};
use crate::text::{borrow, to_string_lossy};
use crate::{Buffer, DType, Error, Result, Tensor};
use easytransfer_abi as abi;
use std::ptr::{null, null_mut};

/// How a parameter starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All zeros.
    Zeros,
    /// One value.
    Constant(f64),
    /// Normal with this mean and standard deviation.
    Normal(f64, f64),
    /// Normal within two standard deviations.
    TruncatedNormal(f64, f64),
    /// Uniform in `[a, b)`.
    Uniform(f64, f64),
    /// Glorot and Bengio 2010.
    XavierUniform,
    /// Uniform in ±sqrt(1 / fan_in).
    KaimingUniform,
}

impl Init {
    /// All ones.
    pub const ONES: Self = Self::Constant(1.0);

    fn raw(self) -> abi::et_init {
        let (kind, a, b) = match self {
            Self::Zeros => (abi::ET_INIT_ZEROS, 0.0, 0.0),
            Self::Constant(a) => (abi::ET_INIT_CONSTANT, a, 0.0),
            Self::Normal(a, b) => (abi::ET_INIT_NORMAL, a, b),
            Self::TruncatedNormal(a, b) => (abi::ET_INIT_TRUNCATED_NORMAL, a, b),
            Self::Uniform(a, b) => (abi::ET_INIT_UNIFORM, a, b),
            Self::XavierUniform => (abi::ET_INIT_XAVIER_UNIFORM, 0.0, 0.0),
            Self::KaimingUniform => (abi::ET_INIT_KAIMING_UNIFORM, 0.0, 0.0),
        };
        abi::et_init { kind, reserved: 0, a, b }
    }
}

handle! {
    /// A set of parameters: built by declaring through scopes, then sealed into arenas for training. Cloning takes
    /// another reference to the same set.
    Params(et_params) released by param, et_host_param.params_release
}
lent_mut! { Params(et_params) }

impl Clone for Params {
    fn clone(&self) -> Self {
        let raw = ask!(tables().param, et_host_param.params_retain(self.as_raw()) or null_mut());
        // SAFETY: `params_retain` answers with an owned reference to a live set.
        match unsafe { Self::from_raw(raw) } {
            Ok(params) => params,
            Err(error) => panic!("a live parameter set can be retained: {error}"),
        }
    }
}

impl Params {
    /// An empty set of single precision parameters. Initial values depend on `seed` and each name alone.
    pub fn new(seed: u64) -> Result<Self> {
        Self::with_dtype(seed, DType::F32)
    }

    /// An empty set of F32 or F64 parameters.
    pub fn with_dtype(seed: u64, dtype: DType) -> Result<Self> {
        let mut out = null_mut();
        call!(tables().param, et_host_param.params_new(seed, dtype as i32, &mut out))?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Self::from_raw(out) }
    }

    /// The outermost scope.
    pub fn root(&self) -> Result<Scope> {
        let raw = ask!(tables().param, et_host_param.params_root(self.as_raw()) or null_mut());
        // SAFETY: the scope is owned by the caller.
        unsafe { Scope::from_raw(raw) }
    }

    /// Number of parameters.
    pub fn len(&self) -> usize {
        ask!(tables().param, et_host_param.params_len(self.as_raw()) or 0)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All parameters in declaration order.
    pub fn iter(&self) -> impl Iterator<Item = Param> + '_ {
        (0..self.len()).filter_map(|index| {
            let raw =
                ask!(tables().param, et_host_param.params_at(self.as_raw(), index) or null_mut());
            // SAFETY: the parameter is owned by the caller.
            unsafe { Param::from_raw(raw) }.ok()
        })
    }

    /// Parameter by name. Errors with the nearest name.
    pub fn find(&self, name: &str) -> Result<Param> {
        let mut out = null_mut();
        call!(tables().param, et_host_param.params_find(self.as_raw(), borrow(name), &mut out))?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Param::from_raw(out) }
    }

    /// Moves trainable parameters into the arena.
    pub fn seal(&mut self) -> Result<()> {
        call!(tables().param, et_host_param.params_seal(self.as_raw()))
    }

    /// Number of elements in the arena.
    pub fn arena_len(&self) -> usize {
        ask!(tables().param, et_host_param.params_arena_len(self.as_raw()) or 0)
    }

    /// Forgets all gradients.
    pub fn zero_grads(&mut self) {
        ask!(tables().param, et_host_param.params_zero_grads(self.as_raw()) or ());
    }

    /// Euclidean norm of all gradients together.
    pub fn grad_norm(&self) -> Result<f64> {
        let mut out = 0.0;
        call!(tables().param, et_host_param.params_grad_norm(self.as_raw(), &mut out))?;
        Ok(out)
    }

    /// Multiplies all gradients.
    pub fn scale_grads(&mut self, factor: f64) -> Result<()> {
        call!(tables().param, et_host_param.params_scale_grads(self.as_raw(), factor))
    }

    /// The parameters of a sealed set whose names fit one of `patterns`, in which `*` stands for any text, as a set of
    /// its own: it shares values and gradients, but steps, norms and forgetting concern these alone. Errors: NOT_FOUND
    /// naming a pattern that fits no trainable parameter, FAILED_PRECONDITION before [`Params::seal`].
    pub fn part(&self, patterns: &[&str]) -> Result<Params> {
        let patterns: Vec<_> = patterns.iter().map(|pattern| borrow(pattern)).collect();
        let mut out = null_mut();
        call!(
            tables().param,
            et_host_param.params_part(self.as_raw(), patterns.as_ptr(), patterns.len(), &mut out)
        )?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Self::from_raw(out) }
    }

    /// Moves the values towards those of `from`, by name: self + factor (from - self). Parameters that only `from` has
    /// are left out. Errors: NOT_FOUND naming a parameter that `from` lacks, SHAPE.
    pub fn lerp(&mut self, from: &Params, factor: f64) -> Result<()> {
        call!(tables().param, et_host_param.params_lerp(self.as_raw(), from.as_raw(), factor))
    }

    /// Takes over the values of `from`, by name. Errors as for [`Params::lerp`].
    pub fn copy_from(&mut self, from: &Params) -> Result<()> {
        self.lerp(from, 1.0)
    }

    /// Adds the gradients of `from`, times `factor`, by name; parameters that no gradient has reached in `from` are
    /// left out. Errors: NOT_FOUND, SHAPE, FAILED_PRECONDITION where a set is not sealed or a parameter is frozen.
    pub fn add_grads(&mut self, from: &Params, factor: f64) -> Result<()> {
        call!(tables().param, et_host_param.params_add_grads(self.as_raw(), from.as_raw(), factor))
    }

    /// All values of a sealed set as a tensor [[`Params::arena_len`]] that shares their memory, for reductions over
    /// machines; asked for anew before each write.
    pub fn arena_values(&mut self) -> Result<Tensor> {
        self.arena(abi::ET_ARENA_VALUES)
    }

    /// All gradients, likewise. Those that no pass has reached are zero, and count as having come.
    pub fn arena_grads(&mut self) -> Result<Tensor> {
        self.arena(abi::ET_ARENA_GRADS)
    }

    fn arena(&mut self, which: i32) -> Result<Tensor> {
        let mut out = null_mut();
        call!(tables().param, et_host_param.params_arena(self.as_raw(), which, &mut out))?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Tensor::from_raw(out) }
    }

    /// A copy of all values.
    pub fn snapshot(&self) -> Result<Buffer> {
        let mut out = null_mut();
        call!(tables().param, et_host_param.params_snapshot(self.as_raw(), &mut out))?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Buffer::from_raw(out) }
    }

    /// Sets all values from a snapshot of the same set.
    pub fn restore(&mut self, snapshot: &Buffer) -> Result<()> {
        call!(tables().param, et_host_param.params_restore(self.as_raw(), snapshot.as_raw()))
    }
}

handle! {
    /// A named place in a set where parameters are declared.
    Scope(et_scope) released by param, et_host_param.scope_release
}
never_lent_mut! { Scope(et_scope) }

impl Scope {
    /// A scope below this one; `name` may be dotted, and empty means this scope.
    pub fn child(&self, name: &str) -> Result<Scope> {
        let mut out = null_mut();
        call!(tables().param, et_host_param.scope_child(self.as_raw(), borrow(name), &mut out))?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Scope::from_raw(out) }
    }

    /// Dotted path; empty for the root.
    pub fn path(&self) -> String {
        let empty = abi::et_str { ptr: null(), len: 0 };
        let path = ask!(tables().param, et_host_param.scope_path(self.as_raw()) or empty);
        // SAFETY: the path is valid while the scope lives, and it is copied here.
        unsafe { to_string_lossy(path) }
    }

    /// Declares a trainable parameter.
    pub fn param(&self, name: &str, shape: &[usize], init: Init) -> Result<Param> {
        let mut out = null_mut();
        call!(
            tables().param,
            et_host_param.scope_param(
                self.as_raw(),
                borrow(name),
                shape.as_ptr(),
                shape.len(),
                &init.raw(),
                &mut out
            )
        )?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Param::from_raw(out) }
    }
}

handle! {
    /// One named parameter. Cloning takes another reference.
    Param(et_param) released by param, et_host_param.release
}
never_lent_mut! { Param(et_param) }

impl Clone for Param {
    fn clone(&self) -> Self {
        let raw = ask!(tables().param, et_host_param.retain(self.as_raw()) or null_mut());
        // SAFETY: `retain` answers with an owned reference to a live parameter.
        match unsafe { Self::from_raw(raw) } {
            Ok(param) => param,
            Err(error) => panic!("a live parameter can be retained: {error}"),
        }
    }
}

impl Param {
    /// Full dotted name.
    pub fn name(&self) -> String {
        let empty = abi::et_str { ptr: null(), len: 0 };
        let name = ask!(tables().param, et_host_param.name(self.as_raw()) or empty);
        // SAFETY: the name is valid while the parameter lives, and it is copied here.
        unsafe { to_string_lossy(name) }
    }

    /// Extents.
    pub fn shape(&self) -> &[usize] {
        let rank = ask!(tables().param, et_host_param.rank(self.as_raw()) or 0);
        let shape = ask!(tables().param, et_host_param.shape(self.as_raw()) or null());
        if rank == 0 || shape.is_null() {
            return &[];
        }
        // SAFETY: the host keeps `rank` extents alive as long as the parameter.
        unsafe { std::slice::from_raw_parts(shape, rank) }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape().iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The present value, tracked when trainable. A view: an optimizer step changes it.
    pub fn tensor(&self) -> Result<Tensor> {
        let mut out = null_mut();
        call!(tables().param, et_host_param.tensor(self.as_raw(), &mut out))?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Tensor::from_raw(out) }
    }

    /// A copy of the gradient, if one has arrived.
    pub fn grad(&self) -> Result<Option<Tensor>> {
        let mut out = null_mut();
        call!(tables().param, et_host_param.grad(self.as_raw(), &mut out))?;
        // SAFETY: on success the out holds NULL or an owned reference.
        if out.is_null() { Ok(None) } else { unsafe { Tensor::from_raw(out) }.map(Some) }
    }

    /// Whether a gradient has arrived since the gradients were forgotten.
    pub fn has_grad(&self) -> bool {
        ask!(tables().param, et_host_param.has_grad(self.as_raw()) or 0) != 0
    }

    /// Replaces the gradient.
    pub fn set_grad(&self, grad: &Tensor) -> Result<()> {
        call!(tables().param, et_host_param.set_grad(self.as_raw(), grad.as_raw()))
    }

    /// Copies a tensor's values into the parameter.
    pub fn assign(&self, value: &Tensor) -> Result<()> {
        call!(tables().param, et_host_param.assign(self.as_raw(), value.as_raw()))
    }

    /// Takes the value from a buffer at a byte offset, referring to its memory where type and alignment allow.
    pub fn assign_buffer(&self, dtype: DType, buffer: &Buffer, offset: usize) -> Result<()> {
        call!(
            tables().param,
            et_host_param.assign_buffer(self.as_raw(), dtype as i32, buffer.as_raw(), offset)
        )
    }

    /// Whether optimizers change the parameter.
    pub fn is_trainable(&self) -> bool {
        ask!(tables().param, et_host_param.is_trainable(self.as_raw()) or 0) != 0
    }

    /// Freezes or unfreezes.
    pub fn set_trainable(&self, trainable: bool) -> Result<()> {
        call!(tables().param, et_host_param.set_trainable(self.as_raw(), i32::from(trainable)))
    }

    /// Factor on the learning rate.
    pub fn lr_scale(&self) -> f64 {
        ask!(tables().param, et_host_param.lr_scale(self.as_raw()) or 1.0)
    }

    /// Sets the factor on the learning rate.
    pub fn set_lr_scale(&self, scale: f64) -> Result<()> {
        call!(tables().param, et_host_param.set_lr_scale(self.as_raw(), scale))
    }

    /// Whether weight decay applies.
    pub fn has_decay(&self) -> bool {
        ask!(tables().param, et_host_param.has_decay(self.as_raw()) or 0) != 0
    }

    /// Switches weight decay.
    pub fn set_decay(&self, decay: bool) {
        ask!(tables().param, et_host_param.set_decay(self.as_raw(), i32::from(decay)) or ());
    }

    /// Adds a low-rank update W + scale * B A (Hu et al. 2021) and freezes W.
    pub fn set_low_rank(&self, a: &Param, b: &Param, scale: f64) -> Result<()> {
        call!(
            tables().param,
            et_host_param.set_low_rank(self.as_raw(), a.as_raw(), b.as_raw(), scale)
        )
    }

    /// The value that a saved model should carry, low-rank update included.
    pub fn merged(&self) -> Result<Tensor> {
        let mut out = null_mut();
        call!(tables().param, et_host_param.merged(self.as_raw(), &mut out))?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Tensor::from_raw(out) }
    }
}

impl std::fmt::Debug for Param {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Param({} {:?})", self.name(), self.shape())
    }
}

/// The error for an option or argument out of its range: "NAME: expected WHAT, found VALUE".
pub fn out_of_range(name: &str, expected: &str, found: impl std::fmt::Display) -> Error {
    Error::invalid(format!("{name}: expected {expected}, found {found}"))
}
