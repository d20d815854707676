//! `easytransfer plugin new`: starts a plugin beside the unpacked package.

use std::path::PathBuf;

use clap::Args;
use easytransfer::{Error, Result};
use easytransfer_scaffold::{Language, NewPlugin, Sdk};

use crate::print;

/// Start a plugin that compiles, passes the check, and does something; it needs this package alone
#[derive(Args)]
pub struct NewCommand {
    /// loss, model, optimizer, app, metric, strategy or op
    kind: String,
    /// Name of the component: lower-case letters, digits and dashes
    name: String,
    /// rust, c or c++; in C and C++ there are loss, metric, strategy and op
    #[arg(long, value_name = "LANGUAGE", default_value = "rust")]
    language: String,
    /// Folder to make [default: the plugin's id, such as loss-NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl NewCommand {
    pub fn run(self) -> Result<()> {
        let fault = |text: String| Error::user(format!("plugin new: {text}"));
        let language = Language::of(&self.language).map_err(fault)?;
        let plugin = NewPlugin::new(&self.kind, &self.name, language).map_err(fault)?;
        let command = std::env::current_exe()
            .map_err(|error| Error::other(format!("plugin new: find this command: {error}")))?;
        let sdk = Sdk::beside(&command).map_err(fault)?;
        let folder = self.out.unwrap_or_else(|| plugin.id().into());
        plugin.write(&sdk, &folder).map_err(fault)?;
        print::text(&plugin.next_steps(&folder, false))
    }
}
