//! The host that this library is attached to, and the way to its tables.
//!
//! One library has one host for the life of the process: a plugin gets it in `init`, a host program attaches the
//! engine it starts.

use crate::{Error, Result};
use easytransfer_abi as abi;
use std::ffi::CStr;
use std::sync::OnceLock;

/// The tables of the attached host.
pub(crate) struct Tables {
    host: &'static abi::et_host,
    pub tensor: &'static abi::et_host_tensor,
    pub autograd: &'static abi::et_host_autograd,
    pub param: &'static abi::et_host_param,
    pub nn: &'static abi::et_host_nn,
    pub rng: &'static abi::et_host_rng,
    pub data: &'static abi::et_host_data,
    pub stream: &'static abi::et_host_stream,
    pub tokenizer_table: &'static abi::et_host_tokenizer,
    pub log: Option<&'static abi::et_host_log>,
    pub profile: Option<&'static abi::et_host_profile>,
    pub step: Option<&'static abi::et_host_step>,
}

impl Tables {
    /// The table of a card, which an engine has once the card is open: that may be after this library was attached.
    pub fn cuda(&self) -> Option<&'static abi::et_host_cuda> {
        // SAFETY: the id names the table's type.
        unsafe { interface(self.host, c"et.cuda/1") }
    }
}

static TABLES: OnceLock<Tables> = OnceLock::new();

/// Attaches this library to a host. Attaching to the same host again does nothing.
///
/// # Errors
/// `ET_ERR_NOT_FOUND` when the host lacks an interface that this library cannot do without, and
/// `ET_ERR_FAILED_PRECONDITION` when the library is attached to another host already.
///
/// # Safety
/// `host` is a host table that lives until the process ends.
pub unsafe fn attach(host: *const abi::et_host) -> Result<()> {
    // SAFETY: promised by the caller.
    let host: &'static abi::et_host =
        unsafe { host.as_ref() }.ok_or_else(|| Error::invalid("attach: the host is NULL"))?;
    if let Some(tables) = TABLES.get() {
        return if std::ptr::eq(tables.host, host) {
            Ok(())
        } else {
            Err(Error::new(
                abi::ET_ERR_FAILED_PRECONDITION,
                "attach: this library already works with another engine; one process has one engine",
            ))
        };
    }
    // SAFETY: each id names the table type that it is cast to.
    let tables = unsafe {
        Tables {
            host,
            tensor: required(host, c"et.tensor/1")?,
            autograd: required(host, c"et.autograd/1")?,
            param: required(host, c"et.param/1")?,
            nn: required(host, c"et.nn/1")?,
            rng: required(host, c"et.rng/1")?,
            data: required(host, c"et.data/1")?,
            stream: required(host, c"et.stream/1")?,
            tokenizer_table: required(host, c"et.tokenizer/1")?,
            log: interface(host, c"et.log/1"),
            profile: interface(host, c"et.profile/1"),
            step: interface(host, c"et.step/1"),
        }
    };
    // A second thread may have attached meanwhile; it attached the same host or one of them would have been refused
    // above.
    let _ = TABLES.set(tables);
    Ok(())
}

/// A table of the host by id.
///
/// # Safety
/// `T` is the table type that the id names.
pub(crate) unsafe fn interface<T>(host: &abi::et_host, id: &CStr) -> Option<&'static T> {
    // SAFETY: the host answers with NULL or a table of that id, which lives until the process ends.
    unsafe { host.get_interface?(host, id.as_ptr()).cast::<T>().as_ref() }
}

unsafe fn required<T>(host: &abi::et_host, id: &CStr) -> Result<&'static T> {
    // SAFETY: as for `interface`.
    unsafe { interface(host, id) }.ok_or_else(|| {
        Error::new(
            abi::ET_ERR_NOT_FOUND,
            format!(
                "attach: the host (ABI {}.{}) has no interface {}; a newer host is needed",
                host.abi_major,
                host.abi_minor,
                id.to_string_lossy()
            ),
        )
    })
}

/// The tables; panics when nothing is attached, which a plugin cannot experience: its components exist only after
/// `init`.
#[inline]
pub(crate) fn tables() -> &'static Tables {
    match TABLES.get() {
        Some(tables) => tables,
        None => panic!("no engine is attached: start a runtime first"),
    }
}

pub(crate) fn host() -> &'static abi::et_host {
    tables().host
}

pub(crate) fn try_host() -> Option<&'static abi::et_host> {
    TABLES.get().map(|tables| tables.host)
}

/// The raw host table, for handing on to C code or to a registry; NULL when nothing is attached.
pub fn raw_host() -> *const abi::et_host {
    try_host().map_or(std::ptr::null(), std::ptr::from_ref)
}

/// Number of handles alive in the engine; 0 when everything was given back.
pub fn live_handles() -> i64 {
    // SAFETY: the slot takes no arguments.
    try_host().and_then(|host| host.live_handles).map_or(0, |f| unsafe { f() })
}

#[cold]
#[inline(never)]
pub(crate) fn nothing(name: &str) -> Error {
    Error::invalid(format!("NULL result: expected a {name} in the out"))
}

#[cold]
#[inline(never)]
pub(crate) fn missing(slot: &str) -> Error {
    Error::new(
        abi::ET_ERR_UNIMPLEMENTED,
        format!("this host has no {slot}; a newer host is needed"),
    )
}

/// A slot of a table, if the writer of the table says that it filled it.
macro_rules! slot {
    ($table:expr, $ty:ident . $name:ident) => {{
        let table: &::easytransfer_abi::$ty = $table;
        let end =
            ::std::mem::offset_of!(::easytransfer_abi::$ty, $name) + ::std::mem::size_of::<usize>();
        if table.struct_size >= end { table.$name } else { None }
    }};
}
pub(crate) use slot;

/// Calls a fallible slot: `call!(tables().tensor, et_host_tensor.unary(op, x, &mut out))?`. The caller vouches for
/// the arguments.
macro_rules! call {
    ($table:expr, $ty:ident . $name:ident ( $($arg:expr),* $(,)? )) => {
        match $crate::host::slot!($table, $ty.$name) {
            // SAFETY: handles are live while their wrappers are, slices are borrowed for the call, outs are local.
            Some(f) => unsafe { $crate::Error::from_raw(f($($arg),*)) },
            None => Err($crate::host::missing(concat!(stringify!($ty), ".", stringify!($name)))),
        }
    };
}
pub(crate) use call;

/// Calls a slot that cannot fail, or answers with a default when the host lacks it.
macro_rules! ask {
    ($table:expr, $ty:ident . $name:ident ( $($arg:expr),* $(,)? ) or $default:expr) => {
        match $crate::host::slot!($table, $ty.$name) {
            // SAFETY: as for `call!`.
            Some(f) => unsafe { f($($arg),*) },
            None => $default,
        }
    };
}
pub(crate) use ask;

/// An owned handle: drops by the slot that releases it.
macro_rules! handle {
    ($(#[$meta:meta])* $name:ident($raw:ident) released by $table:ident, $ty:ident . $release:ident) => {
        $(#[$meta])*
        pub struct $name(::std::ptr::NonNull<::easytransfer_abi::$raw>);

        // SAFETY: the host's handles are atomically reference counted, and slots tagged [one-at-a-time] are reached
        // only through `&mut` or through objects whose host side locks.
        unsafe impl Send for $name {}
        // SAFETY: as above.
        unsafe impl Sync for $name {}

        impl $name {
            /// Takes over a reference from the boundary.
            ///
            /// # Safety
            /// `raw` is an owned reference or NULL.
            #[doc(hidden)]
            #[inline(always)]
            pub unsafe fn from_raw(raw: *mut ::easytransfer_abi::$raw) -> $crate::Result<Self> {
                match ::std::ptr::NonNull::new(raw) {
                    Some(raw) => Self::checked(raw),
                    None => Err($crate::host::nothing(stringify!($name))),
                }
            }

            /// The handle, with its reference; NULL for one that was lent.
            #[doc(hidden)]
            #[allow(dead_code, reason = "not every handle is given away")]
            pub fn into_raw(self) -> *mut ::easytransfer_abi::$raw {
                let this = ::std::mem::ManuallyDrop::new(self);
                if this.is_lent() { ::std::ptr::null_mut() } else { this.0.as_ptr() }
            }

            /// A wrapper around a borrowed handle that gives nothing back.
            ///
            /// # Safety
            /// `raw` stays alive for `'a`.
            #[doc(hidden)]
            #[allow(dead_code, reason = "not every handle is lent")]
            pub unsafe fn lend<'a>(
                raw: *mut ::easytransfer_abi::$raw,
            ) -> $crate::Result<$crate::Lent<'a, Self>> {
                // SAFETY: promised by the caller; `Lent` never drops the wrapper.
                Ok($crate::Lent::new(unsafe { Self::from_raw(raw)? }))
            }
        }

        impl Drop for $name {
            #[inline]
            fn drop(&mut self) {
                if !self.is_lent() {
                    $crate::host::ask!($crate::host::tables().$table, $ty.$release(self.0.as_ptr()) or ());
                }
            }
        }
    };
}
pub(crate) use handle;

/// A handle that nobody lends to be changed.
macro_rules! never_lent_mut {
    ($name:ident($raw:ident)) => {
        impl $name {
            /// The handle for a call across the boundary; borrowed.
            #[doc(hidden)]
            #[inline(always)]
            pub fn as_raw(&self) -> *mut ::easytransfer_abi::$raw {
                self.0.as_ptr()
            }

            #[inline(always)]
            fn is_lent(&self) -> bool {
                false
            }

            #[inline(always)]
            fn checked(raw: ::std::ptr::NonNull<::easytransfer_abi::$raw>) -> $crate::Result<Self> {
                Ok(Self(raw))
            }
        }
    };
}
pub(crate) use never_lent_mut;

/// A handle that hosts also lend to be changed; see [`Loan`].
macro_rules! lent_mut {
    ($name:ident($raw:ident)) => {
        impl $name {
            /// The handle for a call across the boundary; borrowed. NULL for one whose time has ended.
            #[doc(hidden)]
            #[inline]
            pub fn as_raw(&self) -> *mut ::easytransfer_abi::$raw {
                match $crate::lent::Loan::of(self.0) {
                    None => self.0.as_ptr(),
                    Some(loan) => loan.raw().cast(),
                }
            }

            #[inline]
            fn is_lent(&self) -> bool {
                $crate::lent::Loan::of(self.0).is_some()
            }

            /// A pointer that comes from elsewhere must not look like a loan.
            #[inline]
            fn checked(raw: ::std::ptr::NonNull<::easytransfer_abi::$raw>) -> $crate::Result<Self> {
                match $crate::lent::Loan::is_marked(raw) {
                    false => Ok(Self(raw)),
                    true => Err($crate::lent::misaligned(stringify!($name))),
                }
            }

            /// A wrapper around a borrowed handle that may be changed, and that is of no use after `'a`, wherever it
            /// went.
            ///
            /// # Safety
            /// `raw` stays alive for `'a`.
            #[doc(hidden)]
            pub unsafe fn lend_mut<'a>(
                raw: *mut ::easytransfer_abi::$raw,
            ) -> $crate::Result<$crate::LentMut<'a, Self>> {
                if raw.is_null() {
                    return Err($crate::host::nothing(stringify!($name)));
                }
                let loan = $crate::lent::Loan::new(raw.cast());
                Ok($crate::LentMut::new(Self($crate::lent::Loan::mark(loan)), loan))
            }
        }

        impl $crate::lent::Lendable for $name {
            const NAME: &'static str = stringify!($name);

            fn loan(&self) -> Option<::std::ptr::NonNull<$crate::lent::Loan>> {
                $crate::lent::Loan::of(self.0).map(::std::ptr::NonNull::from)
            }
        }
    };
}
pub(crate) use lent_mut;
