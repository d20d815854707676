//! Columns that strategies need besides those of the app: domains, weights, tasks. The host makes fields of them,
//! which neither the app nor the model looks at.

use std::collections::HashMap;

use easytransfer_plugin as plugin;
use easytransfer_plugin::{Column, ColumnKind, ExtraColumn, Record, Row};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The columns, and the numbers of the categories that were seen.
#[derive(Debug, Clone, Default)]
pub struct ExtraColumns {
    columns: Vec<ExtraColumn>,
    /// The categories of each column, in the order of their numbers.
    categories: Vec<Vec<String>>,
    numbers: Vec<HashMap<String, i64>>,
}

impl ExtraColumns {
    /// The columns of all strategies but for roles that the app has. Errors: a role that two strategies describe
    /// differently, or without a name.
    pub fn new(wanted: Vec<ExtraColumn>, of_app: &[Column]) -> Result<ExtraColumns> {
        let mut columns: Vec<ExtraColumn> = Vec::new();
        for column in wanted {
            if column.role.is_empty() || ["record", "source"].contains(&column.role.as_str()) {
                return Err(Error::user(format!(
                    "strategy: columns: expected a role other than \"\", \"record\" and \"source\", found {:?}",
                    column.role
                )));
            }
            let of_app = of_app.iter().any(|known| known.role == column.role);
            match columns.iter().find(|known| known.role == column.role) {
                Some(known) if *known != column => {
                    return Err(Error::user(format!(
                        "strategy: columns: two strategies want {:?}, one as {known:?}, one as {column:?}; use one of them",
                        column.role
                    )));
                }
                None if !of_app => columns.push(column),
                _ => {}
            }
        }
        let none = vec![Vec::new(); columns.len()];
        Ok(ExtraColumns { numbers: vec![HashMap::new(); none.len()], categories: none, columns })
    }

    /// The columns as files are searched for them: as targets are, which keep their types, and which other files than
    /// that of the training may lack.
    pub fn columns(&self) -> impl Iterator<Item = Column> + '_ {
        self.columns.iter().map(|column| Column {
            role: column.role.clone(),
            names: column.names.clone(),
            required: column.required,
            target: true,
        })
    }

    /// Sees a record (JSON), so that every category has its number before the first field is made. Errors: a number
    /// that is none.
    pub fn observe(&mut self, record: &str) -> plugin::Result<()> {
        if self.columns.is_empty() {
            return Ok(());
        }
        let record: Record = serde_json::from_str(record)?;
        for (at, column) in self.columns.iter().enumerate() {
            let Some(value) = record.get(&column.role) else { continue };
            match column.kind {
                ColumnKind::Number => drop(number(&column.role, value)?),
                ColumnKind::Category => {
                    let known = self.numbers[at].len() as i64;
                    let text = text_of(value);
                    if !self.numbers[at].contains_key(&text) {
                        self.numbers[at].insert(text.clone(), known);
                        self.categories[at].push(text);
                    }
                }
            }
        }
        Ok(())
    }

    /// Puts the fields of a record (JSON) into its rows.
    pub fn fill(&self, record: &str, rows: &mut [Row]) -> plugin::Result<()> {
        if self.columns.is_empty() {
            return Ok(());
        }
        let record: Record = serde_json::from_str(record)?;
        for (at, column) in self.columns.iter().enumerate() {
            let value = record.get(&column.role);
            for row in &mut *rows {
                match column.kind {
                    ColumnKind::Number => {
                        let value = value.map(|value| number(&column.role, value)).transpose()?;
                        row.put_f32(&column.role, &[value.unwrap_or(f32::NAN)])?;
                    }
                    ColumnKind::Category => {
                        let known = value.and_then(|value| self.numbers[at].get(&text_of(value)));
                        row.put_i64(&column.role, &[known.copied().unwrap_or(-1)])?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The texts of each column of categories, in the order of their numbers, by role.
    pub fn categories(&self) -> Map<String, Value> {
        let each = self.columns.iter().zip(&self.categories);
        each.filter(|(column, _)| column.kind == ColumnKind::Category)
            .map(|(column, texts)| (column.role.clone(), Value::from(texts.clone())))
            .collect()
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn number(role: &str, value: &Value) -> plugin::Result<f32> {
    let found = match value {
        Value::String(text) => text.trim().parse().ok(),
        other => other.as_f64().map(|number| number as f32),
    };
    let finite = found.filter(|number: &f32| number.is_finite());
    finite.ok_or_else(|| plugin::Error::record(role, "a number", value.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(role: &str, kind: ColumnKind) -> ExtraColumn {
        ExtraColumn { role: role.to_owned(), kind, ..ExtraColumn::default() }
    }

    #[test]
    fn categories_have_numbers_in_the_order_in_which_they_come() {
        let domain = column("domain", ColumnKind::Category);
        let mut extra = ExtraColumns::new(vec![domain.clone(), domain], &[]).unwrap();
        for text in ["b", "a", "b", "3"] {
            extra.observe(&format!("{{\"domain\": {text:?}}}")).unwrap();
        }
        assert_eq!(
            Value::Object(extra.categories()),
            serde_json::json!({"domain": ["b", "a", "3"]})
        );
    }

    #[test]
    fn a_number_that_is_none_is_the_records_fault() {
        let mut extra = ExtraColumns::new(vec![column("weight", ColumnKind::Number)], &[]).unwrap();
        extra.observe(r#"{"weight": " 0.5"}"#).unwrap();
        let refusal = extra.observe(r#"{"weight": "much"}"#).unwrap_err();
        assert_eq!(refusal.record_fault().unwrap().role, "weight");
    }

    #[test]
    fn a_role_of_the_app_stays_the_apps() {
        let of_app = Column { role: "label".into(), names: vec![], required: true, target: true };
        let wanted = vec![column("label", ColumnKind::Category)];
        assert_eq!(ExtraColumns::new(wanted, &[of_app]).unwrap().columns().count(), 0);
        let two = vec![column("x", ColumnKind::Category), column("x", ColumnKind::Number)];
        assert!(ExtraColumns::new(two, &[]).unwrap_err().to_string().contains("two strategies"));
    }
}
