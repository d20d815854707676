//! The tables of today against a frozen copy of those that plugins out there were built for, compared by
//! `abi_stable`, which prints a readable difference.
//!
//! `abi_stable` compares package names as well, so the source of `sdk/abi` is compiled into this program a second
//! time.
#![allow(non_camel_case_types, reason = "the names are the C names")]
#![allow(missing_docs, reason = "frozen copies carry no documentation")]

use abi_stable::{
    StableAbi, abi_stability::abi_checking::check_layout_compatibility as compare,
    type_layout::TypeLayout,
};

#[path = "../../../sdk/abi/src/cuda.rs"]
mod cuda;
#[path = "../../../sdk/abi/src/data.rs"]
mod data;
#[path = "../../../sdk/abi/src/engine.rs"]
mod engine;
#[path = "../src/frozen_0_2.rs"]
mod frozen_0_2;
#[path = "../../../sdk/abi/src/group.rs"]
mod group;
#[path = "../../../sdk/abi/src/host.rs"]
mod host;
#[path = "../../../sdk/abi/src/library.rs"]
mod library;
#[path = "../../../sdk/abi/src/net.rs"]
mod net;
#[path = "../../../sdk/abi/src/plugin.rs"]
mod plugin;
#[path = "../../../sdk/abi/src/profile.rs"]
mod profile;
#[path = "../../../sdk/abi/src/session.rs"]
mod session;
#[path = "../../../sdk/abi/src/step.rs"]
mod step;

use cuda::*;
use data::*;
use engine::*;
use group::*;
use host::*;
use library::*;
use net::*;
use plugin::*;
use profile::*;
use session::*;
use step::*;

/// Ok if `today` is `frozen`, or `frozen` with fields appended; else the difference. Two tables that point at a table
/// that grew differ for `abi_stable`, so a difference counts only if a field of the frozen table itself changed.
fn check(frozen: &'static TypeLayout, today: &'static TypeLayout) -> Result<(), String> {
    let Err(difference) = compare(frozen, today) else {
        return Ok(());
    };
    let fields = |layout: &TypeLayout| -> Vec<String> {
        layout.get_fields().into_iter().flatten().map(|field| field.to_string()).collect()
    };
    let same = frozen.alignment() == today.alignment() && frozen.name() == today.name();
    if same && fields(today).starts_with(&fields(frozen)) {
        return Ok(());
    }
    Err(difference.to_string())
}

/// Each table as it was frozen and as it is today.
macro_rules! pairs {
    ($($table:ident),*) => {
        [$((stringify!($table), frozen_0_2::$table::LAYOUT, $table::LAYOUT)),*]
    };
}

#[test]
fn layout_check_tables_of_0_2_are_kept() {
    let tables = frozen_0_2::tables!(pairs);
    for id in ["et_host_context", "et_host_net", "et_group_table", "et_host_registry"] {
        assert!(tables.iter().any(|(name, ..)| *name == id), "{id} is not frozen");
    }
    for (name, frozen, today) in tables {
        if let Err(difference) = check(frozen, today) {
            panic!("{name} breaks plugins built for 0.2:\n{difference}");
        }
    }
}

macro_rules! variant {
    ($module:ident { $($field:ident: $type:ty),* $(,)? }) => {
        mod $module {
            #[repr(C)]
            #[derive(abi_stable::StableAbi)]
            pub struct et_table {
                $(pub $field: $type),*
            }
        }
    };
}
variant!(original { struct_size: usize, add: Option<unsafe extern "C" fn(i32) -> i32>, sub: Option<unsafe extern "C" fn(i64) -> i64> });
variant!(retyped { struct_size: usize, add: Option<unsafe extern "C" fn(i64) -> i32>, sub: Option<unsafe extern "C" fn(i64) -> i64> });
variant!(reordered { struct_size: usize, sub: Option<unsafe extern "C" fn(i64) -> i64>, add: Option<unsafe extern "C" fn(i32) -> i32> });
variant!(appended { struct_size: usize, add: Option<unsafe extern "C" fn(i32) -> i32>, sub: Option<unsafe extern "C" fn(i64) -> i64>, neg: Option<unsafe extern "C" fn(i32) -> i32> });

#[test]
fn layout_check_changed_signature_is_rejected_by_name() {
    let difference = check(original::et_table::LAYOUT, retyped::et_table::LAYOUT).unwrap_err();
    assert!(difference.contains("add") && difference.contains("i64"), "{difference}");
}

#[test]
fn layout_check_reordered_field_is_rejected() {
    assert!(check(original::et_table::LAYOUT, reordered::et_table::LAYOUT).is_err());
}

#[test]
fn layout_check_removed_field_is_rejected() {
    assert!(check(appended::et_table::LAYOUT, original::et_table::LAYOUT).is_err());
}

#[test]
fn layout_check_appended_field_is_accepted() {
    assert_eq!(check(original::et_table::LAYOUT, appended::et_table::LAYOUT), Ok(()));
}
