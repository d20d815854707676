//! Why a plugin could not be listed, loaded or found.

use std::fmt;
use std::path::{Path, PathBuf};

/// The file of what concerns names and no file.
pub(crate) const NOWHERE: &str = "(registry)";

/// What every refusal states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Id of the plugin, or the text that was asked for when there is no plugin.
    pub plugin: String,
    /// The manifest or library concerned; "(linked in)" for a plugin without one.
    pub file: PathBuf,
    /// What went wrong, in a few words.
    pub problem: String,
    /// What was expected.
    pub required: String,
    /// What was there instead.
    pub found: String,
    /// What the user can do.
    pub remedy: String,
}

impl Facts {
    /// Boxed, as every error holds it: errors stay small.
    pub(crate) fn boxed(
        plugin: impl Into<String>,
        file: &Path,
        problem: impl Into<String>,
        required: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Box<Facts> {
        Box::new(Facts {
            plugin: plugin.into(),
            file: file.to_path_buf(),
            problem: problem.into(),
            required: required.into(),
            found: found.into(),
            remedy: remedy.into(),
        })
    }
}

/// Why a plugin was refused or a component was not found. The text always states the plugin, the file, what was
/// required, what was found and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadError {
    /// A path does not exist, cannot be read, or holds no manifest.
    Path(Box<Facts>),
    /// The manifest is malformed; the problem names line and key.
    PluginManifest(Box<Facts>),
    /// Another plugin with the same id comes earlier in the search order, or is loaded already.
    Duplicate(Box<Facts>),
    /// The manifest names no library for this platform.
    Platform(Box<Facts>),
    /// The [`Policy`](crate::Policy) does not allow the library.
    Policy(Box<Facts>),
    /// The file is not a library that this process can open.
    Library(Box<Facts>),
    /// The library has no entry symbol, or it returned no record.
    Entry(Box<Facts>),
    /// The plugin was built for another version of the boundary, or its record is malformed.
    Abi(Box<Facts>),
    /// Id or version in the library differ from the manifest, or from what something was made with.
    Identity(Box<Facts>),
    /// The host lacks an interface that the plugin requires.
    Interface(Box<Facts>),
    /// The plugin's `init` returned an error.
    Init {
        /// What happened.
        facts: Box<Facts>,
        /// The `ET_ERR_` code of the plugin's error.
        code: i32,
    },
    /// A component table is malformed, or the components differ from the manifest.
    Component(Box<Facts>),
    /// Several plugins offer the component that was asked for, or one plugin offers it twice.
    Clash(Box<Facts>),
    /// A plugin asked for something of another plugin while plugins are being loaded.
    Busy(Box<Facts>),
    /// No plugin provides the component that was asked for.
    NoSuchComponent(Box<Facts>),
}

impl LoadError {
    /// The particulars, for programs that show them in their own way.
    pub fn facts(&self) -> &Facts {
        match self {
            LoadError::Path(facts)
            | LoadError::PluginManifest(facts)
            | LoadError::Duplicate(facts)
            | LoadError::Platform(facts)
            | LoadError::Policy(facts)
            | LoadError::Library(facts)
            | LoadError::Entry(facts)
            | LoadError::Abi(facts)
            | LoadError::Identity(facts)
            | LoadError::Interface(facts)
            | LoadError::Init { facts, .. }
            | LoadError::Component(facts)
            | LoadError::Clash(facts)
            | LoadError::Busy(facts)
            | LoadError::NoSuchComponent(facts) => facts,
        }
    }

    fn facts_mut(&mut self) -> &mut Facts {
        match self {
            LoadError::Path(facts)
            | LoadError::PluginManifest(facts)
            | LoadError::Duplicate(facts)
            | LoadError::Platform(facts)
            | LoadError::Policy(facts)
            | LoadError::Library(facts)
            | LoadError::Entry(facts)
            | LoadError::Abi(facts)
            | LoadError::Identity(facts)
            | LoadError::Interface(facts)
            | LoadError::Init { facts, .. }
            | LoadError::Component(facts)
            | LoadError::Clash(facts)
            | LoadError::Busy(facts)
            | LoadError::NoSuchComponent(facts) => facts,
        }
    }

    /// The same error, with something else that was found.
    pub(crate) fn and(mut self, found: &str) -> LoadError {
        let facts = self.facts_mut();
        facts.found = format!("{}; {found}", facts.found);
        self
    }

    /// The `ET_ERR_` code that fits best when this error has to cross the boundary.
    pub fn code(&self) -> i32 {
        use easytransfer_abi as abi;
        match self {
            LoadError::Path(_) | LoadError::NoSuchComponent(_) => abi::ET_ERR_NOT_FOUND,
            LoadError::Duplicate(_) | LoadError::Clash(_) => abi::ET_ERR_ALREADY_EXISTS,
            LoadError::Platform(_) | LoadError::Interface(_) => abi::ET_ERR_UNIMPLEMENTED,
            LoadError::Policy(_) | LoadError::Busy(_) => abi::ET_ERR_FAILED_PRECONDITION,
            LoadError::Init { code, .. } => *code,
            LoadError::PluginManifest(_)
            | LoadError::Library(_)
            | LoadError::Entry(_)
            | LoadError::Abi(_)
            | LoadError::Identity(_)
            | LoadError::Component(_) => abi::ET_ERR_BAD_INPUT,
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Facts { plugin, file, problem, required, found, remedy } = self.facts();
        // A name that was asked for is in no file.
        match file == Path::new(NOWHERE) {
            true => write!(f, "{plugin:?}")?,
            false => write!(f, "plugin {plugin:?} ({})", file.display())?,
        }
        write!(f, ": {problem}; required: {required}; found: {found}; remedy: {remedy}")
    }
}

impl std::error::Error for LoadError {}
