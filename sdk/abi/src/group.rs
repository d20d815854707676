//! Gradients over machines: what a library of communication offers (`et.group/1`). The tables alone; who makes groups
//! is the library.

use crate::{et_error, et_host, et_str, et_view};
use core::ffi::{c_char, c_void};

/// The machines of a run, as one of them sees them.
#[cfg_attr(feature = "layout-check", repr(C), derive(abi_stable::StableAbi))]
pub struct et_group {
    _opaque: [u8; 0],
}

/// `et.group/1`: collective operations. Every member calls them in the same order. They work in place on contiguous
/// views, are enqueued on `stream` where the memory is that of a card, and otherwise are done when they return.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_group_table {
    /// Bytes filled by the library.
    pub struct_size: usize,
    /// Number of this member, from 0. [any-thread] since 0.2
    pub rank: Option<unsafe extern "C" fn(group: *const et_group) -> usize>,
    /// Number of members. [any-thread] since 0.2
    pub size: Option<unsafe extern "C" fn(group: *const et_group) -> usize>,
    /// Puts the reduction (`ET_GROUP_`) over all members into everybody's `data`. [one-at-a-time] since 0.2
    pub all_reduce: Option<
        unsafe extern "C" fn(
            group: *mut et_group,
            data: *const et_view,
            reduction: i32,
            stream: *mut c_void,
        ) -> *mut et_error,
    >,
    /// Of the reduction over all members, member r gets part r of `size` equal parts of `data` into `part`; the length
    /// of `data` is `size` times that of `part`. [one-at-a-time] since 0.2
    pub reduce_scatter: Option<
        unsafe extern "C" fn(
            group: *mut et_group,
            data: *const et_view,
            part: *const et_view,
            reduction: i32,
            stream: *mut c_void,
        ) -> *mut et_error,
    >,
    /// Everybody's `part`, in the order of ranks, into everybody's `data`. [one-at-a-time] since 0.2
    pub all_gather: Option<
        unsafe extern "C" fn(
            group: *mut et_group,
            part: *const et_view,
            data: *const et_view,
            stream: *mut c_void,
        ) -> *mut et_error,
    >,
    /// The `data` of member `root` into everybody's. [one-at-a-time] since 0.2
    pub broadcast: Option<
        unsafe extern "C" fn(
            group: *mut et_group,
            data: *const et_view,
            root: usize,
            stream: *mut c_void,
        ) -> *mut et_error,
    >,
    /// Returns once every member has called it. [one-at-a-time] since 0.2
    pub barrier: Option<unsafe extern "C" fn(group: *mut et_group) -> *mut et_error>,
    /// Leaves the group. Accepts NULL. [one-at-a-time] since 0.2
    pub release: Option<unsafe extern "C" fn(group: *mut et_group)>,
}

/// The record that the one exported symbol of a library of communication, `const et_group_record
/// *et_group_entry(void)`, returns. The fields up to `version` are frozen for all time.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_group_record {
    /// `ET_GROUP_MAGIC`.
    pub magic: u64,
    /// `ET_ABI_MAJOR` the library was built for.
    pub abi_major: u32,
    /// `ET_ABI_MINOR` the library needs at least.
    pub abi_minor: u32,
    /// Bytes filled by the library.
    pub struct_size: usize,
    /// How it communicates: "nccl" or "tcp".
    pub id: *const c_char,
    /// Version of the library.
    pub version: *const c_char,
    /// Joins a group. `options` is JSON: {"rank": 0, "size": 2, "address": "host:port of rank 0", "device": 0}.
    /// Returns once all members are there. Errors: INVALID_ARGUMENT naming the option, DEVICE. [one-at-a-time] since
    /// 0.2
    pub join: Option<
        unsafe extern "C" fn(
            host: *const et_host,
            options: et_str,
            table: *mut *const et_group_table,
            out: *mut *mut et_group,
        ) -> *mut et_error,
    >,
}
