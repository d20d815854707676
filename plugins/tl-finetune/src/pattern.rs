//! Patterns over parameter names.

/// A pattern: `*` matches any text; without `*` it matches names that are equal or continue with a dot.
pub struct Pattern {
    parts: Vec<String>,
}

impl Pattern {
    pub fn new(text: &str) -> Self {
        Self { parts: text.split('*').map(str::to_owned).collect() }
    }

    pub fn matches(&self, name: &str) -> bool {
        let [first, middle @ .., last] = self.parts.as_slice() else {
            // `split` gives at least one part, so this is the single one.
            let only = &self.parts[0];
            return name.strip_prefix(only.as_str()).is_some_and(|rest| {
                rest.is_empty() || rest.starts_with('.') || only.ends_with('.')
            });
        };
        let Some(mut rest) = name.strip_prefix(first.as_str()) else { return false };
        for part in middle {
            match rest.find(part.as_str()) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.len() >= last.len() && rest.ends_with(last.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn pattern_without_star_matches_whole_components() {
        let pattern = Pattern::new("encoder.layer.1");
        assert!(pattern.matches("encoder.layer.1.output.dense.weight"));
        assert!(!pattern.matches("encoder.layer.10.output.dense.weight"));
        assert!(Pattern::new("embeddings").matches("embeddings"));
    }

    #[test]
    fn pattern_with_stars_matches_in_order() {
        let pattern = Pattern::new("encoder.*.query.*");
        assert!(pattern.matches("encoder.layer.0.attention.self.query.weight"));
        assert!(!pattern.matches("encoder.layer.0.attention.self.key.weight"));
        assert!(!Pattern::new("*.bias").matches("classifier.weight"));
        assert!(Pattern::new("*").matches("anything"));
    }
}
