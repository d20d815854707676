//! What a run shows: a report as one HTML file (no scripts, nothing fetched from elsewhere, curves as SVG) here,
//! [`progress`] on the terminal, [`events`] for TensorBoard and lines of JSON ([`jsonl_log`]); [`run_log`] writes all
//! of them.

mod chart;
#[cfg(feature = "train")]
pub mod events;
#[cfg(feature = "train")]
pub mod jsonl_log;
#[cfg(feature = "train")]
pub mod progress;
pub mod run_log;

use std::fmt::Write;

use serde_json::Value;

pub use chart::Curve;

/// What a report shows. Empty parts are left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// The heading.
    pub title: String,
    /// Names and values for the top: `accuracy`, `0.912`.
    pub metrics: Vec<(String, f64)>,
    /// Charts: a name and the curves in it. Curves in one chart share their axes.
    pub charts: Vec<(String, Vec<Curve>)>,
    /// One row per class.
    pub classes: Vec<ClassRow>,
    /// Who was taken for whom.
    pub confusion: Option<Confusion>,
    /// Wrongly answered rows, the worst first.
    pub wrong: Vec<WrongExample>,
    /// The options of the run, an object of any depth.
    pub options: Value,
}

/// How one class did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClassRow {
    /// Its label.
    pub label: String,
    /// True among those answered so; from 0 to 1.
    pub precision: f64,
    /// Found among the true ones; from 0 to 1.
    pub recall: f64,
    /// The harmonic mean of both.
    pub f1: f64,
    /// How many rows have this label.
    pub support: u64,
}

/// Counts of true labels (rows) and answers (columns).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Confusion {
    /// The labels, in the order of rows and columns.
    pub labels: Vec<String>,
    /// The counts, `[C][C]`; missing ones are 0.
    pub counts: Vec<Vec<u64>>,
}

/// One row that was answered wrongly.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WrongExample {
    /// Its line in the data file.
    pub line: u64,
    /// Its text.
    pub text: String,
    /// Its label.
    pub expected: String,
    /// The answer.
    pub predicted: String,
    /// The answer's probability, from 0 to 1.
    pub probability: f64,
}

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;\
color:#222;background:#fff}h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}\
table{border-collapse:collapse}th,td{padding:.25rem .6rem;border-bottom:1px solid #ddd;text-align:left}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}.scroll{overflow-x:auto}\
svg{max-width:100%;height:auto}code{font-size:.9em}";

/// The report as HTML.
pub fn render(report: &Report) -> String {
    let title = escape(&report.title);
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
         <style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n"
    );
    if !report.metrics.is_empty() {
        out.push_str("<table>\n");
        for (name, value) in &report.metrics {
            row(&mut out, &[(escape(name), false), (number(*value), true)]);
        }
        out.push_str("</table>\n");
    }
    for (name, curves) in &report.charts {
        heading(&mut out, name);
        out.push_str(&chart::draw(curves));
    }
    if !report.classes.is_empty() {
        heading(&mut out, "Classes");
        head(&mut out, &["label", "precision", "recall", "F1", "rows"]);
        for class in &report.classes {
            let cells =
                [class.precision, class.recall, class.f1].map(|value| (number(value), true));
            let [precision, recall, f1] = cells;
            let label = (escape(&class.label), false);
            row(&mut out, &[label, precision, recall, f1, (class.support.to_string(), true)]);
        }
        out.push_str("</table></div>\n");
    }
    if let Some(confusion) = &report.confusion {
        heading(&mut out, "Confusion matrix (rows: true label, columns: answer)");
        draw_confusion(&mut out, confusion);
    }
    if !report.wrong.is_empty() {
        heading(&mut out, "Wrong answers");
        head(&mut out, &["line", "text", "label", "answer", "probability"]);
        for wrong in &report.wrong {
            row(
                &mut out,
                &[
                    (wrong.line.to_string(), true),
                    (escape(&wrong.text), false),
                    (escape(&wrong.expected), false),
                    (escape(&wrong.predicted), false),
                    (number(wrong.probability), true),
                ],
            );
        }
        out.push_str("</table></div>\n");
    }
    let mut options = Vec::new();
    flatten(&mut options, "", &report.options);
    if !options.is_empty() {
        heading(&mut out, "Options");
        head(&mut out, &["option", "value"]);
        for (key, value) in options {
            let code = |text: &str| (format!("<code>{}</code>", escape(text)), false);
            row(&mut out, &[code(&key), code(&value)]);
        }
        out.push_str("</table></div>\n");
    }
    out.push_str("</body></html>\n");
    out
}

/// Text for HTML, inside elements and attributes alike; control characters that HTML forbids become `\u{fffd}`.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(character),
            control if control.is_control() => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

/// Four significant digits.
fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_string();
    }
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-3..1e6).contains(&magnitude) {
        return format!("{value:.3e}");
    }
    let digits = if magnitude >= 1000.0 {
        0
    } else if magnitude >= 10.0 {
        2
    } else {
        4
    };
    format!("{value:.digits$}")
}

fn heading(out: &mut String, text: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "<h2>{}</h2>", escape(text));
}

/// Starts a table; the caller ends it and its frame.
fn head(out: &mut String, names: &[&str]) {
    out.push_str("<div class=\"scroll\"><table><tr>");
    for name in names {
        let _ = write!(out, "<th>{}</th>", escape(name));
    }
    out.push_str("</tr>\n");
}

/// A row of cells that are HTML already; true means a number.
fn row(out: &mut String, cells: &[(String, bool)]) {
    out.push_str("<tr>");
    for (cell, is_number) in cells {
        let class = if *is_number { " class=\"n\"" } else { "" };
        let _ = write!(out, "<td{class}>{cell}</td>");
    }
    out.push_str("</tr>\n");
}

fn draw_confusion(out: &mut String, confusion: &Confusion) {
    out.push_str("<div class=\"scroll\"><table><tr><th></th>");
    for label in &confusion.labels {
        let _ = write!(out, "<th class=\"n\">{}</th>", escape(label));
    }
    out.push_str("</tr>\n");
    for (index, label) in confusion.labels.iter().enumerate() {
        let counts = confusion.counts.get(index).map(Vec::as_slice).unwrap_or_default();
        let total = counts.iter().sum::<u64>().max(1) as f64;
        let _ = write!(out, "<tr><th>{}</th>", escape(label));
        for column in 0..confusion.labels.len() {
            let count = counts.get(column).copied().unwrap_or(0);
            let part = count as f64 / total * 0.75;
            let color = if column == index { "46,125,50" } else { "198,40,40" };
            let _ = write!(
                out,
                "<td class=\"n\" style=\"background:rgba({color},{part:.2})\">{count}</td>"
            );
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div>\n");
}

fn flatten(out: &mut Vec<(String, String)>, prefix: &str, value: &Value) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(out, &key, value);
            }
        }
        Value::Null if prefix.is_empty() => {}
        Value::String(text) => out.push((prefix.to_string(), text.clone())),
        other => out.push((prefix.to_string(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report() -> Report {
        Report {
            title: "run <1>".to_string(),
            metrics: vec![("accuracy".to_string(), 0.9123456)],
            charts: vec![(
                "loss".to_string(),
                vec![Curve { name: "train".to_string(), points: vec![(0.0, 1.0), (10.0, 0.5)] }],
            )],
            classes: vec![ClassRow { label: "a&b".to_string(), support: 7, ..ClassRow::default() }],
            confusion: Some(Confusion {
                labels: vec!["x".to_string(), "y".to_string()],
                counts: vec![vec![3, 1]],
            }),
            wrong: vec![WrongExample {
                line: 12,
                text: "<script>alert('x')</script>\u{1}".to_string(),
                probability: 0.75,
                ..WrongExample::default()
            }],
            options: json!({"optimizer": {"lr": 5e-5, "name": "adamw\"><b>"}}),
        }
    }

    #[test]
    fn everything_is_shown_and_nothing_is_executed() {
        let html = render(&report());
        for needle in [
            "<h1>run &lt;1&gt;</h1>",
            "0.9123",
            "a&amp;b",
            "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;\u{fffd}",
            "<code>optimizer.lr</code>",
            "adamw&quot;&gt;&lt;b&gt;",
            "<svg",
            ">3</td>",
        ] {
            assert!(html.contains(needle), "{needle} is missing");
        }
        assert!(!html.contains("<script") && !html.contains("http"));
    }

    #[test]
    fn elements_are_balanced() {
        let html = render(&report());
        for element in ["table", "div", "tr", "td", "svg", "h2", "body"] {
            let count = |text: &str| html.matches(text).count();
            let open = count(&format!("<{element} ")) + count(&format!("<{element}>"));
            assert_eq!(open, count(&format!("</{element}>")), "{element}");
        }
    }

    #[test]
    fn empty_report_has_no_empty_tables() {
        let html = render(&Report { title: "t".to_string(), ..Report::default() });
        assert!(!html.contains("<table") && !html.contains("<h2"));
    }
}
