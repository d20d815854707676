//! Components and the checks of their tables.

use crate::error::{Facts, LoadError};
use crate::fields::{Fields, SCHEMA_LIMIT, name, text};
use crate::handshake::LibraryOrigin;
use crate::kind::ComponentKind;
use crate::manifest::{PluginManifest, Provided};
use easytransfer_abi::{ET_OP_HAS_BACKWARD, et_plugin_loss, et_plugin_op};
use std::ffi::{c_char, c_void};
use std::mem::offset_of;

/// Components of one kind and plugin that are believed; a plugin with more answers every index.
const COMPONENT_LIMIT: usize = 1024;

/// A registered component. Everything in it stays valid until the process ends.
#[derive(Clone, Debug)]
pub struct Component {
    /// What it is, and so the type behind `table`.
    pub kind: ComponentKind,
    /// The name users write.
    pub name: String,
    /// Id of the plugin that brought it.
    pub plugin_id: String,
    /// Version of that plugin.
    pub plugin_version: String,
    /// JSON Schema of the options; empty for operations, which have none.
    pub schema: String,
    /// The table: `et_plugin_loss` for a loss, and so on. All its required slots are filled.
    pub table: *const c_void,
}

// SAFETY: the table is immutable and lives until the process ends; the rest is owned data.
unsafe impl Send for Component {}
// SAFETY: as above; the tags of the slots say which calls may overlap.
unsafe impl Sync for Component {}

/// `et_plugin_record.component`.
pub(crate) type ComponentFn =
    unsafe extern "C" fn(kind: *const c_char, index: usize) -> *const c_void;

/// Asks a plugin for all its components and checks every table. Errors: `Component`.
///
/// # Safety
/// `component` is the slot of a plugin whose `init` succeeded.
pub(crate) unsafe fn collect(
    origin: &LibraryOrigin,
    version: &str,
    component: ComponentFn,
) -> Result<Vec<Component>, LoadError> {
    let mut all: Vec<Component> = Vec::new();
    for kind in ComponentKind::ALL {
        for index in 0.. {
            if index == COMPONENT_LIMIT {
                return Err(bad(
                    origin,
                    format!("the list of its components of kind {kind} has no end"),
                    "NULL past the last component",
                    format!("a table for each of {COMPONENT_LIMIT} indices"),
                ));
            }
            // SAFETY: the caller's promise; the kind is NUL-terminated.
            let table = unsafe { component(kind.interface().as_ptr(), index) };
            if table.is_null() {
                break;
            }
            // SAFETY: the contract says that a table stands there, for all time.
            let read = unsafe { read_table(origin, version, kind, index, table) }?;
            if all.iter().any(|c| c.kind == kind && c.name == read.name) {
                return Err(LoadError::Clash(Facts::boxed(
                    &origin.id,
                    &origin.file,
                    format!("the plugin offers the {kind} {:?} twice", read.name),
                    "one component per kind and name",
                    format!("a second one at index {index}"),
                    "report this to the plugin's author",
                )));
            }
            all.push(read);
        }
    }
    Ok(all)
}

/// Checks one table.
///
/// # Safety
/// `table` points to a table with a truthful `struct_size`, for all time.
unsafe fn read_table(
    origin: &LibraryOrigin,
    version: &str,
    kind: ComponentKind,
    index: usize,
    table: *const c_void,
) -> Result<Component, LoadError> {
    let table_name = kind.table_name();
    let place = format!("the {kind} at index {index} is malformed");
    if !(table as usize).is_multiple_of(align_of::<usize>()) {
        let required = format!("a {table_name} aligned to {} bytes", align_of::<usize>());
        return Err(bad(origin, place, required, format!("address {table:p}")));
    }
    // SAFETY: the caller's promise.
    let fields = unsafe { Fields::new(table.cast()) };
    let too_small = |place: &str, slot: &str, end: usize| {
        bad(
            origin,
            place,
            format!("struct_size of at least {end}, so that {table_name}.{slot} is in it"),
            format!("struct_size {}", fields.size()),
        )
    };
    // `name` is at the same place in every table.
    let name_offset = offset_of!(et_plugin_loss, name);
    let Some(pointer) = fields.word(name_offset) else {
        return Err(too_small(&place, "name", name_offset + size_of::<usize>()));
    };
    // SAFETY: the contract says NULL or a NUL-terminated text.
    let name = unsafe { name(pointer as *const c_char) }.map_err(|found| {
        bad(origin, &*place, format!("{table_name}.name, a UTF-8 text without spaces"), found)
    })?;
    if name.contains('/') {
        let required =
            format!("{table_name}.name without '/', which stands between plugin and name");
        return Err(bad(origin, &*place, required, format!("{name:?}")));
    }
    let place = format!("the {kind} {name:?} is malformed");
    let schema = match kind.schema_offset() {
        None => String::new(),
        Some(offset) => {
            let Some(pointer) = fields.word(offset) else {
                return Err(too_small(&place, "schema", offset + size_of::<usize>()));
            };
            // SAFETY: the contract says NULL or a NUL-terminated text.
            unsafe { text(pointer as *const c_char, SCHEMA_LIMIT) }.map_err(|found| {
                let required =
                    format!("{table_name}.schema, a UTF-8 text (\"{{}}\" if it has no options)");
                bad(origin, &*place, required, found)
            })?
        }
    };
    let required_slot = |slot: &str, offset: usize| match fields.word(offset) {
        None => Err(too_small(&place, slot, offset + size_of::<usize>())),
        Some(0) => Err(bad(origin, &*place, format!("a function in {table_name}.{slot}"), "NULL")),
        Some(_) => Ok(()),
    };
    for slot in kind.required_slots() {
        required_slot(slot.name, slot.offset)?;
    }
    if kind == ComponentKind::Op {
        let flags = fields.number(offset_of!(et_plugin_op, flags)).unwrap_or(0);
        if flags & ET_OP_HAS_BACKWARD != 0 {
            required_slot("backward", offset_of!(et_plugin_op, backward))?;
        }
    }
    Ok(Component {
        kind,
        name,
        plugin_id: origin.id.clone(),
        plugin_version: version.to_owned(),
        schema,
        table,
    })
}

/// Compares what a plugin offers with what its manifest promises. Errors: `Component`.
pub(crate) fn compare(
    origin: &LibraryOrigin,
    manifest: &PluginManifest,
    components: &[Component],
) -> Result<(), LoadError> {
    let offered: Vec<Provided> = provided(components);
    let names = |list: &[Provided]| {
        let words: Vec<String> = list.iter().map(|p| format!("{} {:?}", p.kind, p.name)).collect();
        if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
    };
    let promised = &manifest.provides;
    let missing = promised.iter().find(|entry| !offered.contains(entry));
    let extra = offered.iter().find(|entry| !promised.contains(entry));
    let problem = match (missing, extra) {
        (None, None) => return Ok(()),
        (Some(p), _) => {
            format!("the library lacks the {} {:?} of the manifest", p.kind, p.name)
        }
        (None, Some(p)) => {
            format!("the library offers the {} {:?}, which the manifest lacks", p.kind, p.name)
        }
    };
    Err(LoadError::Component(Facts::boxed(
        &origin.id,
        &origin.file,
        problem,
        format!("{}, as [[provides]] says", names(promised)),
        names(&offered),
        format!("make [[provides]] in {} agree with the library", manifest.path.display()),
    )))
}

/// Kinds and names of components, sorted.
pub(crate) fn provided(components: &[Component]) -> Vec<Provided> {
    let mut all: Vec<Provided> =
        components.iter().map(|c| Provided { kind: c.kind, name: c.name.clone() }).collect();
    all.sort();
    all
}

fn bad(
    origin: &LibraryOrigin,
    problem: impl Into<String>,
    required: impl Into<String>,
    found: impl Into<String>,
) -> LoadError {
    LoadError::Component(Facts::boxed(
        &origin.id,
        &origin.file,
        problem,
        required,
        found,
        "report this to the plugin's author, or use another version of the plugin",
    ))
}
