//! Plugins that are linked into the program: the stock ones with the feature `builtin`, and what is known of any that
//! has no manifest.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use easytransfer_plugin::LinkedPlugin;

/// Descriptions of linked plugins by their ids.
static DESCRIPTIONS: Mutex<BTreeMap<String, &str>> = Mutex::new(BTreeMap::new());

/// Notes what a linked plugin says of itself beside its record.
pub(crate) fn note(id: &str, plugin: LinkedPlugin) {
    let mut all = DESCRIPTIONS.lock().unwrap_or_else(PoisonError::into_inner);
    all.insert(id.to_owned(), plugin.description());
}

/// The description of a linked plugin; empty for one that has none.
pub(crate) fn description(id: &str) -> String {
    let all = DESCRIPTIONS.lock().unwrap_or_else(PoisonError::into_inner);
    all.get(id).copied().unwrap_or_default().to_owned()
}

/// The stock plugins, where they are part of the program.
#[cfg(feature = "builtin")]
pub(crate) const PLUGINS: &[fn() -> LinkedPlugin] = &[
    app_classify::PluginRecord::get,
    app_comprehend::PluginRecord::get,
    app_embed::PluginRecord::get,
    app_generate::PluginRecord::get,
    app_match::PluginRecord::get,
    app_pretrain::PluginRecord::get,
    loss_basic::PluginRecord::get,
    optim_basic::PluginRecord::get,
    tl_adversarial::PluginRecord::get,
    tl_distill::PluginRecord::get,
    tl_finetune::PluginRecord::get,
    zoo_bert::PluginRecord::get,
    zoo_deberta::PluginRecord::get,
    zoo_imagebert::PluginRecord::get,
    zoo_modernbert::PluginRecord::get,
    zoo_t5::PluginRecord::get,
    zoo_word::PluginRecord::get,
    zoo_xlnet::PluginRecord::get,
];

/// Without the feature there are none.
#[cfg(not(feature = "builtin"))]
pub(crate) const PLUGINS: &[fn() -> LinkedPlugin] = &[];
