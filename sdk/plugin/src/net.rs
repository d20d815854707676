//! What an app can ask the host, from both sides: while it makes features ([`Context`], [`ContextHost`]) and while it
//! computes ([`Net`], [`NetHost`]).

use crate::component::{Call, guard, put_text};
use crate::host::{call, interface, missing, slot};
use crate::text::{borrow, view};
use crate::{Buffer, Error, Lent, Map, Record, Result, Rng, Tensor};
use easytransfer_abi as abi;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr::null_mut;
use std::sync::OnceLock;

/// The table that the host offers under an id, found once.
macro_rules! table {
    ($name:ident, $ty:ident, $id:literal, $text:literal) => {
        fn $name() -> Result<&'static abi::$ty> {
            static TABLE: OnceLock<Option<&'static abi::$ty>> = OnceLock::new();
            let find = || {
                // SAFETY: the id names the table type.
                unsafe { interface(crate::host::host(), $id) }
            };
            TABLE.get_or_init(find).ok_or_else(|| missing($text))
        }
    };
}
table!(context_table, et_host_context, c"et.context/1", "et.context/1");
table!(net_table, et_host_net, c"et.net/1", "et.net/1");

/// What the features of a record are made for, as an app sees it.
pub struct Context<'a> {
    raw: *mut abi::et_context,
    table: &'static abi::et_host_context,
    lifetime: PhantomData<&'a mut ()>,
}

macro_rules! ask_context {
    ($self:ident, $slot:ident) => {
        match slot!($self.table, et_host_context.$slot) {
            // SAFETY: the context lives for the call of `features`.
            Some(f) => unsafe { f($self.raw) },
            None => Default::default(),
        }
    };
}

impl Context<'_> {
    /// # Safety
    /// `raw` is a live context for the time of the call.
    pub(crate) unsafe fn new(raw: *mut abi::et_context) -> Result<Self> {
        if raw.is_null() {
            return Err(Error::invalid("the context is NULL"));
        }
        Ok(Self { raw, table: context_table()?, lifetime: PhantomData })
    }

    /// Whether the features are for training.
    pub fn is_training(&self) -> bool {
        ask_context!(self, training) != 0
    }

    /// Epoch of training, from 0; always 0 for apps whose features are kept ([`crate::AppInfo::fresh`]).
    pub fn epoch(&self) -> u64 {
        ask_context!(self, epoch)
    }

    /// Number of the source that the record comes from, 0 for the file itself.
    pub fn source(&self) -> u64 {
        ask_context!(self, source)
    }

    /// Number of the record in its source.
    pub fn record(&self) -> u64 {
        ask_context!(self, record)
    }

    /// Number of records that [`Context::record_at`] can read; 0 where the source is read as it comes.
    pub fn records_len(&self) -> u64 {
        ask_context!(self, records_len)
    }

    /// Another record of the source. Errors: there is none of that number.
    pub fn record_at(&mut self, index: u64) -> Result<Record> {
        let mut out = null_mut();
        call!(self.table, et_host_context.record_at(self.raw, index, &mut out))?;
        // SAFETY: on success the out holds an owned reference.
        let buffer = unsafe { Buffer::from_raw(out) }?;
        Ok(serde_json::from_str(buffer.as_str()?)?)
    }

    /// Random numbers that depend on the run's seed, the source, the epoch and the record alone.
    pub fn rng(&mut self) -> Result<Lent<'_, Rng>> {
        let mut out = null_mut();
        call!(self.table, et_host_context.rng(self.raw, &mut out))?;
        // SAFETY: the generator lives for the call of `features`.
        unsafe { Rng::lend(out) }
    }
}

/// What a host says of a record whose features it wants; each method is the slot of the same name.
pub trait ContextHost {
    /// See [`Context::is_training`].
    fn training(&self) -> bool {
        false
    }
    /// See [`Context::epoch`].
    fn epoch(&self) -> u64 {
        0
    }
    /// See [`Context::source`].
    fn source(&self) -> u64 {
        0
    }
    /// See [`Context::record`].
    fn record(&self) -> u64;
    /// See [`Context::records_len`].
    fn records_len(&self) -> u64 {
        0
    }
    /// See [`Context::record_at`]; JSON.
    fn record_at(&mut self, index: u64) -> Result<String> {
        Err(Error::new(
            abi::ET_ERR_NOT_FOUND,
            format!("record_at({index}): the records are read as they come, none can be looked up"),
        ))
    }
    /// See [`Context::rng`].
    fn rng(&mut self) -> Result<&Rng>;
}

/// A record to predict for: its number, and random numbers that are the same for every run.
#[derive(Default)]
pub struct Asked {
    /// Number of the record.
    pub record: u64,
    rng: Option<Rng>,
}

impl Asked {
    /// Record `record` of a request or a file.
    pub fn new(record: u64) -> Self {
        Self { record, rng: None }
    }
}

/// First of the streams of random numbers that features draw from; what lies below is the run's.
const FEATURES: u64 = 1 << 63;

/// Random numbers for the features of a record.
pub fn features_rng(seed: u64, source: u64, epoch: u64, record: u64) -> Result<Rng> {
    // Up to 64 sources, 2^25 epochs and 2^32 records have streams of their own.
    Rng::new(seed, FEATURES | (source << 57) | (epoch << 32) | record)
}

impl ContextHost for Asked {
    fn record(&self) -> u64 {
        self.record
    }
    fn rng(&mut self) -> Result<&Rng> {
        let rng = match self.rng.take() {
            Some(rng) => rng,
            None => features_rng(0, 0, 0, self.record)?,
        };
        Ok(self.rng.insert(rng))
    }
}

/// Runs `f` with the host's context as apps get it.
pub(crate) fn with_context<T>(
    mut host: &mut dyn ContextHost,
    f: impl FnOnce(*mut abi::et_context) -> T,
) -> T {
    f((&raw mut host).cast())
}

unsafe fn context_of<'a>(raw: *const abi::et_context) -> &'a mut (dyn ContextHost + 'a) {
    // SAFETY: contexts are made by `with_context` alone, and live for the call.
    unsafe { &mut **raw.cast_mut().cast::<&'a mut (dyn ContextHost + 'a)>() }
}

/// The encoder and the modules of an app while its `forward` runs.
pub struct Net<'a> {
    raw: *mut abi::et_net,
    table: &'static abi::et_host_net,
    lifetime: PhantomData<&'a mut ()>,
}

impl Net<'_> {
    /// # Safety
    /// `raw` is a live net for the time of the call.
    pub(crate) unsafe fn new(raw: *mut abi::et_net) -> Result<Self> {
        if raw.is_null() {
            return Err(Error::invalid("the net is NULL"));
        }
        Ok(Self { raw, table: net_table()?, lifetime: PhantomData })
    }

    /// Runs the encoder (`module` "") or a module that the app declared; the outputs are added to `outputs`. The
    /// batch needs the model's fields ("ids", "positions", "starts" ...): [`Map::below`] takes those of one name
    /// space.
    pub fn run(
        &mut self,
        module: &str,
        call: &Call<'_>,
        batch: &Map,
        outputs: &mut Map,
    ) -> Result<()> {
        let call = call.raw();
        call!(
            self.table,
            et_host_net.run(self.raw, borrow(module), &call, batch.as_raw(), outputs.as_raw())
        )
    }

    /// The tensor of a parameter of the whole set by its name, on the tape while training: for heads that are tied to
    /// the encoder.
    pub fn param(&mut self, name: &str) -> Result<Tensor> {
        let mut out = null_mut();
        call!(self.table, et_host_net.param(self.raw, borrow(name), &mut out))?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Tensor::from_raw(out) }
    }

    /// Continues the runs of `batch` by the encoder (`module` "") or another module, token by token, without a tape:
    /// those of "decoder/ids" where the batch has them, else those of "ids". The module must answer
    /// `ET_WANT_LOGITS`. Adds "generated/ids" [N] and "generated/starts" [R + 1], the new tokens of R = B * "return"
    /// runs, those of one run side by side, the best first, and "generated/scores" [R].
    ///
    /// `options` are those of `et_host_net.generate` ("max_new_tokens", "eos", "beams", ...); what is left out has
    /// its default. Errors: an option that is unknown or out of range, by name; a module without logits.
    pub fn generate(
        &mut self,
        module: &str,
        batch: &Map,
        options: &Record,
        outputs: &mut Map,
    ) -> Result<()> {
        let options = serde_json::to_string(options)?;
        call!(
            self.table,
            et_host_net.generate(
                self.raw,
                borrow(module),
                batch.as_raw(),
                borrow(&options),
                outputs.as_raw()
            )
        )
    }
}

/// What a host lets an app run; each method is the slot of the same name.
pub trait NetHost {
    /// See [`Net::run`].
    fn run(&mut self, module: &str, call: &Call<'_>, batch: &Map, outputs: &mut Map) -> Result<()>;
    /// See [`Net::param`].
    fn param(&mut self, name: &str) -> Result<Tensor>;
    /// See [`Net::generate`]; `options` is JSON.
    fn generate(
        &mut self,
        module: &str,
        batch: &Map,
        options: &str,
        outputs: &mut Map,
    ) -> Result<()> {
        let _ = (module, batch, options, outputs);
        Err(Error::new(abi::ET_ERR_UNIMPLEMENTED, "generate: this host continues no runs"))
    }
}

/// Runs `f` with the host's net as apps get it.
pub(crate) fn with_net<T>(mut host: &mut dyn NetHost, f: impl FnOnce(*mut abi::et_net) -> T) -> T {
    f((&raw mut host).cast())
}

unsafe fn net_of<'a>(raw: *const abi::et_net) -> &'a mut (dyn NetHost + 'a) {
    // SAFETY: nets are made by `with_net` alone, and live for the call.
    unsafe { &mut **raw.cast_mut().cast::<&'a mut (dyn NetHost + 'a)>() }
}

/// The C table that a host offers as `et.context/1`.
pub fn context_host_table() -> *const c_void {
    static TABLE: abi::et_host_context = abi::et_host_context {
        struct_size: size_of::<abi::et_host_context>(),
        training: Some(thunks::training),
        epoch: Some(thunks::epoch),
        source: Some(thunks::source),
        record: Some(thunks::record),
        records_len: Some(thunks::records_len),
        record_at: Some(thunks::record_at),
        rng: Some(thunks::rng),
    };
    (&raw const TABLE).cast()
}

/// The C table that a host offers as `et.net/1`.
pub fn net_host_table() -> *const c_void {
    static TABLE: abi::et_host_net = abi::et_host_net {
        struct_size: size_of::<abi::et_host_net>(),
        run: Some(thunks::run),
        param: Some(thunks::param),
        generate: Some(thunks::generate),
    };
    (&raw const TABLE).cast()
}

mod thunks {
    use super::*;
    use easytransfer_abi::{
        et_buffer, et_call, et_context, et_error, et_map, et_net, et_rng, et_str, et_tensor,
    };

    macro_rules! facts {
        ($($name:ident -> $ty:ty = $host:ident => $value:expr;)*) => {$(
            pub(super) unsafe extern "C" fn $name(context: *const et_context) -> $ty {
                // SAFETY: apps pass the context of their call.
                let $host = unsafe { context_of(context) };
                $value
            }
        )*};
    }
    facts! {
        training -> i32 = host => i32::from(host.training());
        epoch -> u64 = host => host.epoch();
        source -> u64 = host => host.source();
        record -> u64 = host => host.record();
        records_len -> u64 = host => host.records_len();
    }

    pub(super) unsafe extern "C" fn record_at(
        context: *mut et_context,
        index: u64,
        out: *mut *mut et_buffer,
    ) -> *mut et_error {
        // SAFETY: apps pass the context of their call and a valid out.
        guard(|| unsafe { put_text(out, &context_of(context).record_at(index)?) })
    }

    pub(super) unsafe extern "C" fn rng(
        context: *mut et_context,
        out: *mut *mut et_rng,
    ) -> *mut et_error {
        guard(|| {
            // SAFETY: apps pass the context of their call and a valid out.
            unsafe { *out = context_of(context).rng()?.as_raw() };
            Ok(())
        })
    }

    pub(super) unsafe extern "C" fn run(
        net: *mut et_net,
        module: et_str,
        call: *const et_call,
        batch: *const et_map,
        outputs: *mut et_map,
    ) -> *mut et_error {
        guard(|| {
            // SAFETY: apps pass the net of their call, borrowed text, a call and live maps.
            unsafe {
                Call::enter(call, |call| {
                    let batch = Map::lend(batch.cast_mut())?;
                    net_of(net).run(view(module)?, call, &batch, &mut *Map::lend_mut(outputs)?)
                })
            }
        })
    }

    pub(super) unsafe extern "C" fn generate(
        net: *mut et_net,
        module: et_str,
        batch: *const et_map,
        options: et_str,
        outputs: *mut et_map,
    ) -> *mut et_error {
        guard(|| {
            // SAFETY: apps pass the net of their call, borrowed texts and live maps.
            unsafe {
                let batch = Map::lend(batch.cast_mut())?;
                let outputs = &mut *Map::lend_mut(outputs)?;
                net_of(net).generate(view(module)?, &batch, view(options)?, outputs)
            }
        })
    }

    pub(super) unsafe extern "C" fn param(
        net: *mut et_net,
        name: et_str,
        out: *mut *mut et_tensor,
    ) -> *mut et_error {
        guard(|| {
            // SAFETY: apps pass the net of their call, borrowed text and a valid out.
            unsafe { *out = net_of(net).param(view(name)?)?.into_raw() };
            Ok(())
        })
    }
}
