//! The entry record of a plugin.

use crate::component::guard;
use crate::host;
use easytransfer_abi as abi;
use std::ffi::{CStr, c_char, c_void};

#[doc(hidden)]
pub use easytransfer_abi::et_plugin_record;

/// A record that may be a static.
#[doc(hidden)]
#[repr(transparent)]
pub struct StaticRecord(pub et_plugin_record);

// SAFETY: the record is immutable, and its pointers are to statics.
unsafe impl Sync for StaticRecord {}

/// A plugin that is linked into the program, as `PluginRecord::get()` of its crate gives it. Only [`crate::export!`]
/// makes one, so a host may believe what the record says.
#[derive(Clone, Copy)]
pub struct LinkedPlugin {
    record: &'static et_plugin_record,
    description: &'static str,
}

// SAFETY: the record is immutable, and its pointers are to statics.
unsafe impl Send for LinkedPlugin {}
// SAFETY: as above.
unsafe impl Sync for LinkedPlugin {}

impl LinkedPlugin {
    /// For [`crate::export!`].
    ///
    /// # Safety
    /// The record is complete and true, and what it points to lives until the process ends.
    #[doc(hidden)]
    pub const unsafe fn new(record: &'static et_plugin_record, description: &'static str) -> Self {
        Self { record, description }
    }

    /// The description of its package.
    pub const fn description(self) -> &'static str {
        self.description
    }

    /// The record, for a registry.
    pub fn as_raw(self) -> *const et_plugin_record {
        self.record
    }
}

/// A list of component tables that may be a static.
#[doc(hidden)]
pub struct StaticComponents(pub &'static [(&'static CStr, *const c_void)]);

// SAFETY: tables are immutable statics.
unsafe impl Sync for StaticComponents {}

impl StaticComponents {
    /// Component `index` of a kind.
    ///
    /// # Safety
    /// `kind` is NUL-terminated text.
    #[doc(hidden)]
    pub unsafe fn find(&self, kind: *const c_char, index: usize) -> *const c_void {
        if kind.is_null() {
            return std::ptr::null();
        }
        // SAFETY: promised by the caller.
        let kind = unsafe { CStr::from_ptr(kind) };
        self.0
            .iter()
            .filter(|(k, _)| *k == kind)
            .nth(index)
            .map_or(std::ptr::null(), |(_, table)| *table)
    }
}

/// Attaches the plugin to its host.
///
/// # Safety
/// `host` is a host table that lives until the process ends.
#[doc(hidden)]
pub unsafe extern "C" fn init(host: *const abi::et_host) -> *mut abi::et_error {
    if host.is_null() {
        return std::ptr::null_mut();
    }
    // SAFETY: promised by the caller.
    let result = unsafe { host::attach(host) };
    match (result, host::try_host()) {
        // Nothing was attached, so the error is made by the host that was passed.
        (Err(error), None) => {
            // SAFETY: promised by the caller; the message is borrowed for the call.
            unsafe { (*host).error_new }.map_or(std::ptr::null_mut(), |make| unsafe {
                make(error.code(), crate::text::borrow(error.message()))
            })
        }
        (result, _) => guard(|| result),
    }
}

/// Exports components as a plugin: the one symbol that the host looks for, and `PluginRecord::get()` for programs that
/// link the crate.
///
/// ```ignore
/// easytransfer_plugin::export! {
///     id: "loss-mine",
///     losses: [MyLoss],
/// }
/// ```
/// Kinds: `models`, `losses`, `optimizers`, `strategies`, `apps`, `metrics`, `ops`, in this order, all optional. The
/// symbol has the plugin's id in its name, so that a program can link any number of plugins.
#[macro_export]
macro_rules! export {
    (
        id: $id:literal
        $(, models: [$($model:ty),* $(,)?])?
        $(, losses: [$($loss:ty),* $(,)?])?
        $(, optimizers: [$($optimizer:ty),* $(,)?])?
        $(, strategies: [$($strategy:ty),* $(,)?])?
        $(, apps: [$($app:ty),* $(,)?])?
        $(, metrics: [$($metric:ty),* $(,)?])?
        $(, ops: [$($op:ty),* $(,)?])?
        $(,)?
    ) => {
        const _: () = {
            static COMPONENTS: $crate::export::StaticComponents = $crate::export::StaticComponents(&[
                $($((c"et.model/1", ::std::ptr::from_ref($crate::ModelTable::<$model>::TABLE).cast()),)*)?
                $($((c"et.loss/1", ::std::ptr::from_ref($crate::LossTable::<$loss>::TABLE).cast()),)*)?
                $($((c"et.optimizer/1", ::std::ptr::from_ref($crate::OptimizerTable::<$optimizer>::TABLE).cast()),)*)?
                $($((c"et.strategy/1", ::std::ptr::from_ref($crate::StrategyTable::<$strategy>::TABLE).cast()),)*)?
                $($((c"et.app/1", ::std::ptr::from_ref($crate::AppTable::<$app>::TABLE).cast()),)*)?
                $($((c"et.metric/1", ::std::ptr::from_ref($crate::MetricTable::<$metric>::TABLE).cast()),)*)?
                $($((c"et.op/1", ::std::ptr::from_ref(const { $crate::stateless::<$op>() }).cast()),)*)?
            ]);

            unsafe extern "C" fn component(
                kind: *const ::std::ffi::c_char,
                index: usize,
            ) -> *const ::std::ffi::c_void {
                // SAFETY: the host passes NUL-terminated text.
                unsafe { COMPONENTS.find(kind, index) }
            }

            static RECORD: $crate::export::StaticRecord =
                $crate::export::StaticRecord($crate::export::et_plugin_record {
                    magic: $crate::abi::ET_PLUGIN_MAGIC,
                    abi_major: $crate::abi::ET_ABI_MAJOR,
                    abi_minor: $crate::abi::ET_ABI_MINOR,
                    struct_size: ::std::mem::size_of::<$crate::export::et_plugin_record>(),
                    flags: if cfg!(panic = "abort") { $crate::abi::ET_PLUGIN_FLAG_PANIC_ABORT } else { 0 },
                    reserved: 0,
                    id: concat!($id, "\0").as_ptr().cast(),
                    version: concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast(),
                    init: Some($crate::export::init),
                    shutdown: None,
                    component: Some(component),
                });

            impl PluginRecord {
                /// The plugin, for a program that it is linked into.
                pub fn get() -> $crate::LinkedPlugin {
                    // SAFETY: a complete record over tables of this SDK, all of them statics.
                    unsafe { $crate::LinkedPlugin::new(&RECORD.0, env!("CARGO_PKG_DESCRIPTION")) }
                }
            }

            /// The symbol that the host looks for.
            #[unsafe(export_name = concat!("et_plugin_entry_", $id))]
            pub extern "C" fn et_plugin_entry() -> *const $crate::export::et_plugin_record {
                &RECORD.0
            }
        };

        /// The entry record of this plugin.
        pub struct PluginRecord;
    };
}
