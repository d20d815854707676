//! The tables of today against frozen copies of every release, compared by `abi_stable`, which prints a readable
//! difference.
//!
//! `abi_stable` compares package names as well, so the source of `sdk/abi` is compiled into this program a second
//! time.
#![allow(non_camel_case_types, reason = "the names are the C names")]
#![allow(missing_docs, reason = "frozen copies carry no documentation")]

use abi_stable::{
    StableAbi, abi_stability::abi_checking::check_layout_compatibility as compare,
    type_layout::TypeLayout,
};

#[path = "../../../sdk/abi/src/data.rs"]
mod data;
#[path = "../../../sdk/abi/src/engine.rs"]
mod engine;
#[path = "../src/frozen_0_1.rs"]
mod frozen_0_1;
#[path = "../../../sdk/abi/src/host.rs"]
mod host;
#[path = "../../../sdk/abi/src/plugin.rs"]
mod plugin;
#[path = "../../../sdk/abi/src/session.rs"]
mod session;

use data::*;
use engine::*;
use host::*;
use plugin::*;
use session::*;

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

macro_rules! tables {
    ($frozen:ident: $($table:ident),* $(,)?) => {
        vec![$((stringify!($table), $frozen::$table::LAYOUT, $table::LAYOUT)),*]
    };
}

#[test]
fn layout_check_tables_of_0_1_are_kept() {
    let tables = tables![frozen_0_1:
        et_str, et_host, et_host_log, et_host_data, et_host_stream, et_host_config,
        et_encode_options, et_host_tokenizer, et_host_tensor, et_host_autograd, et_rng_state,
        et_host_rng, et_init, et_host_param, et_layer_norm, et_attention, et_optim_step,
        et_host_nn, et_plugin_record, et_call, et_plugin_model, et_plugin_loss,
        et_plugin_optimizer, et_plugin_strategy, et_plugin_app, et_plugin_metric, et_view,
        et_op_call, et_plugin_op, et_host_session,
    ];
    for (name, frozen, today) in tables {
        if let Err(difference) = check(frozen, today) {
            panic!("{name} breaks plugins built for 0.1:\n{difference}");
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
