//! `easytransfer plugin`: which plugins there are, what they offer, and whether one does what it promises.

mod check;
mod child;

use clap::Subcommand;
use easytransfer::train::nearest::{nearest, quoted_list};
use easytransfer::train::options;
use easytransfer::{Error, PluginInfo, Result, Runtime};
use serde_json::Value;

use crate::arguments::Common;
use crate::new_plugin::NewCommand;
use crate::print;

/// Show and check plugins.
#[derive(Subcommand)]
pub enum Plugin {
    /// List the plugins that were found, and what they offer
    List,
    /// Show a plugin, or one of its components, with all options
    Info {
        /// Id of a plugin, or name of a component (NAME or PLUGIN/NAME)
        name: String,
    },
    New(NewCommand),
    Check(check::Check),
    #[command(hide = true, name = child::NAME)]
    Child(child::Child),
}

impl Plugin {
    pub fn run(self, common: &Common) -> Result<()> {
        match self {
            Plugin::List => list(&common.runtime(&[])?),
            Plugin::Info { name } => info(&common.runtime(&[])?, &name),
            Plugin::New(command) => command.run(),
            Plugin::Check(command) => command.run(),
            Plugin::Child(command) => command.run(),
        }
    }
}

fn list(runtime: &Runtime) -> Result<()> {
    let plugins = runtime.plugins();
    if plugins.is_empty() {
        return Err(Error::user(
            "no plugins were found beside the command, in --plugins or in ET_PLUGIN_PATH; name their folder (in the source tree: `cargo xtask stage`)",
        ));
    }
    let mut text = String::new();
    for plugin in &plugins {
        let offers: Vec<String> =
            plugin.provides.iter().map(|(kind, name)| format!("{kind} {name}")).collect();
        text.push_str(&format!("{} {}: {}\n", plugin.id, plugin.version, offers.join(", ")));
        text.push_str(&format!("    {}\n", plugin.path.display()));
        if let Some(problem) = &plugin.problem {
            text.push_str(&format!("    cannot be used: {problem}\n"));
        }
    }
    print::text(&text)
}

fn info(runtime: &Runtime, name: &str) -> Result<()> {
    let plugins = runtime.plugins();
    let mut text = String::new();
    for plugin in &plugins {
        let is_plugin = plugin.id == name;
        let full = |component: &str| name == format!("{}/{component}", plugin.id);
        let components: Vec<&(String, String)> = plugin
            .provides
            .iter()
            .filter(|(_, component)| is_plugin || component == name || full(component))
            .collect();
        if is_plugin || !components.is_empty() {
            write_plugin(&mut text, runtime, plugin, &components)?;
        }
    }
    if !text.is_empty() {
        return print::text(&text);
    }
    let names = plugins.iter().flat_map(|plugin| {
        let components = plugin.provides.iter().map(|(_, component)| component.as_str());
        std::iter::once(plugin.id.as_str()).chain(components)
    });
    let names: Vec<&str> = names.collect();
    let found = quoted_list(plugins.iter().map(|plugin| plugin.id.as_str()));
    let remedy = match nearest(name, names) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`easytransfer plugin list` shows what they offer".to_owned(),
    };
    Err(Error::user(format!(
        "expected the id of a plugin or the name of a component, found `{name}`; plugins: {found}; {remedy}"
    )))
}

fn write_plugin(
    text: &mut String,
    runtime: &Runtime,
    plugin: &PluginInfo,
    components: &[&(String, String)],
) -> Result<()> {
    text.push_str(&format!("plugin {} {}\n", plugin.id, plugin.version));
    if !plugin.description.is_empty() {
        text.push_str(&format!("    {}\n", plugin.description));
    }
    text.push_str(&format!("    {}\n", plugin.path.display()));
    if let Some(problem) = &plugin.problem {
        text.push_str(&format!("    cannot be used: {problem}\n"));
        return Ok(());
    }
    for (kind, name) in components {
        let full_name = format!("{}/{name}", plugin.id);
        let (known, prefix) = (schema(runtime, kind, &full_name)?, prefix(kind, name));
        let help = options::help(&known, &prefix);
        text.push_str(&format!("\n{kind} {name}\n"));
        if let Some(lr) = known["default_lr"].as_f64() {
            text.push_str(&format!("  learning rate {lr}, unless the run sets lr\n"));
        }
        text.push_str(if help.is_empty() { "  no options\n" } else { &help });
    }
    Ok(())
}

/// Where options of a component stand in a training run.
fn prefix(kind: &str, name: &str) -> String {
    match kind {
        "app" | "loss" | "optimizer" => kind.to_owned(),
        "strategy" => format!("strategy.{name}"),
        _ => String::new(),
    }
}

fn schema(runtime: &Runtime, kind: &str, name: &str) -> Result<Value> {
    let text = runtime.schema(kind, name)?;
    if text.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&text)
        .map_err(|error| Error::user(format!("{kind} {name}: its schema is not JSON: {error}")))
}
