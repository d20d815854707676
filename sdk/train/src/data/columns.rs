//! Which column plays which part. An app asks for roles (`text`, `text_pair`, `label`, …); the user names columns with
//! settings; otherwise each file is searched by itself for the names that such columns usually have.

use std::collections::BTreeMap;

use crate::data::records::Header;
use crate::error::{DataError, Result};
use crate::nearest::{nearest, quoted_list};

/// A part that a column can play.
#[derive(Debug, Clone, PartialEq)]
pub struct Role {
    /// Its name, as apps know it: `text_pair`.
    pub name: String,
    /// The setting by which a user names the column: `columns.text_pair`.
    pub setting: String,
    /// Names to look for when the user named none, the likeliest first; case does not matter.
    pub defaults: Vec<String>,
    /// Whether a file without such a column is an error.
    pub required: bool,
    /// Whether a row without it is bad.
    pub in_every_row: bool,
}

impl Role {
    /// The role `name`.
    pub fn new(name: &str, defaults: &[&str], required: bool) -> Role {
        Role {
            name: name.to_string(),
            setting: format!("columns.{name}"),
            defaults: defaults.iter().map(|name| name.to_string()).collect(),
            required,
            in_every_row: required,
        }
    }

    /// The setting, for one split of the data only: `valid.columns.text`.
    fn setting_of(&self, split: Option<&str>) -> String {
        split.map_or(self.setting.clone(), |split| format!("{split}_{}", self.setting))
    }
}

/// The place of each role's column in the records of one file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Columns {
    places: BTreeMap<String, usize>,
}

impl Columns {
    /// The place of the column that plays `role`; none when the file has none.
    pub fn get(&self, role: &str) -> Option<usize> {
        self.places.get(role).copied()
    }

    /// Roles and places, by role name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, usize)> {
        self.places.iter().map(|(role, &place)| (role.as_str(), place))
    }
}

/// Finds the column of every role in the file with `header`. `named` holds what the user said, by role name; it wins
/// over the usual names. `split` is the file's part (`valid`) if its columns can be named apart.
/// Errors: a named column that is not there, with the file's columns, the nearest name and what to type; a required
/// role without a column; a column that is there twice; a name for a role that is not among `roles`.
pub fn resolve(
    header: &Header,
    roles: &[Role],
    named: &BTreeMap<String, String>,
    split: Option<&str>,
) -> Result<Columns> {
    find(header, roles, named, split, false)
}

/// The same for a file that may turn out to have more columns: one that is named for a role that is not required may
/// still come.
pub fn resolve_so_far(
    header: &Header,
    roles: &[Role],
    named: &BTreeMap<String, String>,
    split: Option<&str>,
) -> Result<Columns> {
    find(header, roles, named, split, true)
}

fn find(
    header: &Header,
    roles: &[Role],
    named: &BTreeMap<String, String>,
    split: Option<&str>,
    may_come: bool,
) -> Result<Columns> {
    if let Some(unknown) = named.keys().find(|name| roles.iter().all(|role| role.name != **name)) {
        let known = roles.iter().map(|role| role.name.as_str());
        return Err(DataError::new(header.path())
            .expected(format!("columns for {} only", quoted_list(known)))
            .found(format!("one for `{unknown}`"))
            .remedy("leave it out: the app has no such column, or was trained without it")
            .into());
    }
    let mut columns = Columns::default();
    // A column that is there twice says more of a file than one that is missing.
    let mut missing = None;
    // Named columns first, so that no default takes one of them.
    for role in roles {
        let Some(name) = named.get(&role.name) else { continue };
        match header.index(name) {
            Some(place) => place_once(header, role, place, &mut columns)?,
            None if may_come && !role.required => {}
            None => drop(missing.get_or_insert_with(|| missing_named(header, role, name, split))),
        }
    }
    for role in roles {
        if named.contains_key(&role.name) {
            continue;
        }
        match usual(header, role, &columns) {
            Some(place) => place_once(header, role, place, &mut columns)?,
            None if role.required => {
                missing.get_or_insert_with(|| missing_usual(header, role, split));
            }
            None => {}
        }
    }
    missing.map_or(Ok(columns), |missing| Err(missing.into()))
}

/// Gives a column to a role. Errors: there is another one of its name.
fn place_once(header: &Header, role: &Role, place: usize, columns: &mut Columns) -> Result<()> {
    let name = &header.columns()[place];
    if header.columns()[place + 1..].contains(name) {
        return Err(header
            .fault()
            .expected(format!("one column `{name}` for `{}`", role.name))
            .found(format!("`{name}` twice"))
            .remedy("give the columns different names")
            .into());
    }
    columns.places.insert(role.name.clone(), place);
    Ok(())
}

/// The first column that has one of the role's usual names and no other role yet.
fn usual(header: &Header, role: &Role, taken: &Columns) -> Option<usize> {
    role.defaults.iter().find_map(|name| {
        let found = header
            .index(name)
            .or_else(|| header.columns().iter().position(|have| have.eq_ignore_ascii_case(name)));
        found.filter(|place| taken.places.values().all(|other| other != place))
    })
}

fn missing_named(header: &Header, role: &Role, name: &str, split: Option<&str>) -> DataError {
    let have = || header.columns().iter().map(String::as_str);
    let setting = role.setting_of(split);
    let near = nearest(name, have()).or_else(|| {
        usual(header, role, &Columns::default()).map(|at| have().nth(at).unwrap_or(""))
    });
    let remedy = match near {
        Some(near) if split.is_some() => {
            format!("if this file calls it `{near}`, add `{setting}={near}`")
        }
        Some(near) => format!("did you mean `{setting}={near}`?"),
        None => format!("name one of them with `{setting}=COLUMN`"),
    };
    DataError::new(header.path())
        .expected(format!("a column `{name}` (from `{}={name}`)", role.setting))
        .found(format!("the columns {}", quoted_list(have())))
        .remedy(remedy)
}

fn missing_usual(header: &Header, role: &Role, split: Option<&str>) -> DataError {
    let have = || header.columns().iter().map(String::as_str);
    let setting = role.setting_of(split);
    DataError::new(header.path())
        .expected(format!(
            "a column for `{}` with a usual name ({})",
            role.name,
            quoted_list(role.defaults.iter().map(String::as_str))
        ))
        .found(format!("the columns {}", quoted_list(have())))
        .remedy(format!(
            "name it with `{setting}=COLUMN`, or, if the first line is data and no header, describe the \
             columns with `schema=name:str:1,…`"
        ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Usual names of the column with the text, or with the first of two texts.
    const TEXT_NAMES: &[&str] = &[
        "text",
        "sentence",
        "content",
        "review",
        "sentence1",
        "text_a",
        "text1",
        "question1",
        "premise",
        "query",
        "question",
        "utterance",
        "message",
        "#1 string",
    ];
    /// Usual names of the column with the second text.
    const TEXT_PAIR_NAMES: &[&str] = &[
        "text_pair",
        "sentence2",
        "text_b",
        "text2",
        "question2",
        "hypothesis",
        "document",
        "passage",
        "answer",
        "response",
        "#2 string",
    ];
    /// Usual names of the column with the label, the score or the list of labels.
    const LABEL_NAMES: &[&str] = &[
        "label",
        "labels",
        "score",
        "class",
        "category",
        "intent",
        "target",
        "gold_label",
        "quality",
    ];

    fn header(columns: &[&str]) -> Header {
        Header::new(Path::new("dev.tsv"), columns.iter().map(|name| name.to_string()).collect())
    }

    fn roles() -> Vec<Role> {
        vec![
            Role::new("text", TEXT_NAMES, true),
            Role::new("text_pair", TEXT_PAIR_NAMES, false),
            Role::new("label", LABEL_NAMES, true),
        ]
    }

    fn named(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(role, name)| (role.to_string(), name.to_string())).collect()
    }

    #[test]
    fn each_file_resolves_by_itself() {
        for file in [["label", "sentence"], ["label", "content"], ["Label", "Review"]] {
            let columns = resolve(&header(&file), &roles(), &named(&[]), Some("valid")).unwrap();
            assert_eq!((columns.get("text"), columns.get("label")), (Some(1), Some(0)));
            assert_eq!(columns.get("text_pair"), None);
        }
    }

    #[test]
    fn pairs_take_different_columns() {
        let columns =
            resolve(&header(&["sentence1", "sentence2", "score"]), &roles(), &named(&[]), None)
                .unwrap();
        assert_eq!(
            columns.iter().collect::<Vec<_>>(),
            [("label", 2), ("text", 0), ("text_pair", 1)]
        );
    }

    #[test]
    fn named_column_missing_in_one_file_says_what_to_type() {
        let error = resolve(
            &header(&["label", "content"]),
            &roles(),
            &named(&[("text", "sentence")]),
            Some("valid"),
        )
        .unwrap_err()
        .to_string();
        assert!(error.contains("a column `sentence` (from `columns.text=sentence`)"), "{error}");
        assert!(error.contains("found the columns `label`, `content`"), "{error}");
        assert!(error.contains("`valid_columns.text=content`"), "{error}");
    }

    #[test]
    fn mistyped_column_names_the_nearest() {
        let error =
            resolve(&header(&["text", "label"]), &roles(), &named(&[("label", "lable")]), None);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("did you mean `columns.label=label`?"), "{error}");
    }

    #[test]
    fn missing_required_role_lists_columns_and_schema() {
        let error = resolve(&header(&["x", "0"]), &roles(), &named(&[]), None).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("`x`, `0`"), "{error}");
        assert!(error.contains("`columns.text=COLUMN`") && error.contains("`schema="), "{error}");
    }

    #[test]
    fn a_named_column_is_not_taken_by_a_default() {
        let columns = resolve(
            &header(&["text", "sentence", "label"]),
            &roles(),
            &named(&[("text_pair", "text")]),
            None,
        )
        .unwrap();
        assert_eq!((columns.get("text_pair"), columns.get("text")), (Some(0), Some(1)));
    }
}
