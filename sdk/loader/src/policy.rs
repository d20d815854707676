//! Which code may run: hashes of library files, and who could change them.

use crate::error::{Facts, LoadError};
use crate::manifest::PluginManifest;
use crate::trust;
use sha2::{Digest, Sha256};
use std::path::Path;

/// Which plugins may be loaded. It decides which code runs; it does not restrict what that code does.
///
/// All but [`Policy::Any`] refuse a library, a manifest or a folder of theirs that everybody may write to, or that
/// belongs to somebody else than the administrator, the user who runs the process and the owner of the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Any library that a manifest names, wherever it lies; hashes are not looked at.
    Any,
    /// Where the manifest states a SHA-256 for this platform, the library's bytes must have it, and on Linux these very
    /// bytes are opened, whatever happens to the file meanwhile.
    #[default]
    HashPinned,
    /// The manifest must state a SHA-256 for this platform, and the library's bytes must have it.
    HashRequired,
}

impl Policy {
    /// The policy of a word: `any`, `pinned` (or `hash-pinned`), `hash-required`. Errors: another word.
    pub fn from_name(name: &str) -> Result<Policy, String> {
        match name {
            "any" => Ok(Policy::Any),
            "pinned" | "hash-pinned" => Ok(Policy::HashPinned),
            "hash-required" => Ok(Policy::HashRequired),
            _ => Err(format!("expected any, pinned or hash-required, found {name:?}")),
        }
    }

    /// Checks who could change a file of a plugin; `what` says what it is. Errors: `Policy`.
    pub(crate) fn check_place(self, id: &str, file: &Path, what: &str) -> Result<(), LoadError> {
        if self == Policy::Any {
            return Ok(());
        }
        trust::check(file).map_err(|place| {
            LoadError::Policy(Facts::boxed(
                id,
                file,
                format!("others could change the {what}: {}", place.path.display()),
                place.required,
                place.found,
                format!(
                    "{}; or choose the policy `any` if you trust whoever can write there",
                    place.remedy
                ),
            ))
        })
    }

    /// Checks the bytes of a library; gives the hash that they were checked to have, if any. Errors: `Policy`.
    pub(crate) fn check(
        self,
        manifest: &PluginManifest,
        platform: &str,
        library: &Path,
        bytes: &[u8],
    ) -> Result<Option<String>, LoadError> {
        if self == Policy::Any {
            return Ok(None);
        }
        let Some(wanted) = manifest.sha256.get(platform) else {
            if self == Policy::HashPinned {
                return Ok(None);
            }
            return Err(LoadError::Policy(Facts::boxed(
                &manifest.id,
                &manifest.path,
                "the policy refuses a library without a stated hash",
                format!("`{platform}` under [sha256] (policy HashRequired)"),
                "no entry",
                format!(
                    "add {platform} = {:?} under [sha256] if you trust this file, or choose the policy HashPinned",
                    sha256_hex(bytes)
                ),
            )));
        };
        let found = sha256_hex(bytes);
        if *wanted == found {
            return Ok(Some(found));
        }
        Err(LoadError::Policy(Facts::boxed(
            &manifest.id,
            library,
            "the library is not the file that the manifest describes",
            format!("sha256 {wanted}"),
            format!("sha256 {found}"),
            "install the plugin again from its publisher; change the hash in the manifest only if you built this file",
        )))
    }
}

/// SHA-256 as 64 lower-case hexadecimal digits.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
