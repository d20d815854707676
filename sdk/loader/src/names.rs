//! Names of components as users write them, and whose component is meant.

use crate::kind::ComponentKind;
use easytransfer_text::nearest;
use std::fmt;
use std::str::FromStr;

/// A name as it was asked for: `name`, or `plugin-id/name` to say whose. Neither part holds a '/'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AskedName<'a> {
    /// Id of the plugin, where it was said.
    pub plugin: Option<&'a str>,
    /// Name of the component.
    pub name: &'a str,
}

impl<'a> AskedName<'a> {
    pub fn of(text: &'a str) -> AskedName<'a> {
        match text.split_once('/') {
            Some((plugin, name)) => AskedName { plugin: Some(plugin), name },
            None => AskedName { plugin: None, name: text },
        }
    }
}

/// A stated choice between plugins: wherever a component of this kind and name is asked for without its plugin, that
/// of `plugin` is meant, also where a bundle was trained with another one's. Written as `loss=my-losses/focal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginChoice {
    /// What it is.
    pub kind: ComponentKind,
    /// Id of the plugin.
    pub plugin: String,
    /// Name of the component.
    pub name: String,
}

impl fmt::Display for PluginChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}/{}", self.kind, self.plugin, self.name)
    }
}

impl FromStr for PluginChoice {
    type Err = String;

    /// Reads `KIND=PLUGIN/NAME`. Errors: another form, an unknown kind.
    fn from_str(text: &str) -> Result<PluginChoice, String> {
        let form =
            || format!("expected KIND=PLUGIN/NAME, such as loss=my-losses/focal, found {text:?}");
        let (word, component) = text.split_once('=').ok_or_else(form)?;
        let Some(kind) = ComponentKind::from_name(word) else {
            let names = ComponentKind::ALL.map(ComponentKind::name);
            let hint = nearest(word, names).map_or(String::new(), |n| format!(", nearest {n:?}"));
            return Err(format!(
                "expected one of the kinds {}, found {word:?}{hint}",
                names.join(", ")
            ));
        };
        match AskedName::of(component) {
            AskedName { plugin: Some(plugin), name } if !plugin.is_empty() && !name.is_empty() => {
                Ok(PluginChoice { kind, plugin: plugin.to_owned(), name: name.to_owned() })
            }
            _ => Err(form()),
        }
    }
}

/// How far a version is from the one that something was made with, as Semantic Versioning 2.0.0 has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VersionStep {
    /// The same, or a later one that promises to behave alike.
    Compatible,
    /// Earlier than it was, another minor version before 1.0, or versions that are no numbers and differ.
    Doubtful,
    /// Another major version.
    Breaking,
}

/// Compares the version `made` with the version `found`.
pub(crate) fn version_step(made: &str, found: &str) -> VersionStep {
    if made == found {
        return VersionStep::Compatible;
    }
    match (numbers(made), numbers(found)) {
        (Some(made), Some(found)) if made[0] != found[0] => VersionStep::Breaking,
        (Some(made), Some(found)) if made[0] == 0 && made[1] != found[1] => VersionStep::Doubtful,
        (Some(made), Some(found)) if made <= found => VersionStep::Compatible,
        _ => VersionStep::Doubtful,
    }
}

/// Major, minor and patch; what follows a '-' or '+' does not count.
fn numbers(version: &str) -> Option<[u64; 3]> {
    let core = version.split(['-', '+']).next()?;
    let mut parts = core.split('.').map(|part| part.parse().ok());
    let three = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(three)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_read_as_it_is_written() {
        let choice: PluginChoice = "loss=my-losses/focal".parse().unwrap();
        assert_eq!((choice.plugin.as_str(), choice.name.as_str()), ("my-losses", "focal"));
        assert_eq!(choice.to_string(), "loss=my-losses/focal");
        for (text, words) in [
            ("focal", "KIND=PLUGIN/NAME"),
            ("loss=focal", "KIND=PLUGIN/NAME"),
            ("loss=/focal", "KIND=PLUGIN/NAME"),
            ("los=a/b", "nearest \"loss\""),
        ] {
            let error = text.parse::<PluginChoice>().unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn versions_are_compared_by_meaning() {
        use VersionStep::{Breaking, Compatible, Doubtful};
        for (made, found, step) in [
            ("0.1.0", "0.1.0", Compatible),
            ("0.1.0", "0.1.7", Compatible),
            ("0.1.7", "0.1.0", Doubtful),
            ("0.1.0", "0.2.0", Doubtful),
            ("1.2.0", "1.3.0", Compatible),
            ("1.3.0", "1.2.9", Doubtful),
            ("1.2.0", "2.0.0", Breaking),
            ("0.9.0", "1.0.0", Breaking),
            ("1.2.0-rc1", "1.2.0", Compatible),
            ("today", "tomorrow", Doubtful),
        ] {
            assert_eq!(version_step(made, found), step, "{made} {found}");
        }
    }
}
