//! Text vectors from an encoder: one vector per text, for search, clustering and as features.
#![forbid(unsafe_code)]

mod modules;
mod pooling;

use easytransfer_plugin::{
    App, AppInfo, Call, Column, Context, Error, Map, ModelInfo, Record, Result, Rows, Scope,
    Tensor, Tokenizer, abi, out_of_range, text_of,
};
use modules::{Module, ModuleOptions, normalized};
use pooling::{Pooling, Tokens};
use serde::Deserialize;
use serde_json::{Value, json};
use std::ffi::CStr;

/// One pooling, or several whose vectors are put end to end.
#[derive(Deserialize)]
#[serde(untagged)]
enum Poolings {
    One(Pooling),
    Several(Vec<Pooling>),
}

/// Options of [`Embed`].
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    pooling: Poolings,
    normalize: bool,
    max_length: usize,
    prompt: String,
    pool_prompt: bool,
    lower_case: bool,
    verbatim: Vec<String>,
    modules: Vec<ModuleOptions>,
    truncate: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pooling: Poolings::One(Pooling::Mean),
            normalize: true,
            max_length: 256,
            prompt: String::new(),
            pool_prompt: true,
            lower_case: false,
            verbatim: Vec::new(),
            modules: Vec::new(),
            truncate: 0,
        }
    }
}

impl Options {
    fn poolings(&self) -> &[Pooling] {
        match &self.pooling {
            Poolings::One(pooling) => std::slice::from_ref(pooling),
            Poolings::Several(poolings) => poolings,
        }
    }

    /// The text as the tokenizer gets it.
    fn prepared(&self, text: &str) -> String {
        let text = format!("{}{text}", self.prompt);
        if self.lower_case { lower(&text, &self.verbatim) } else { text }
    }
}

/// Vectors [B, width] in the output "vectors".
pub struct Embed {
    options: Options,
    max_length: usize,
    modules: Vec<Module>,
}

impl App for Embed {
    const NAME: &'static CStr = c"text-embed";
    const SCHEMA: &'static CStr = cr#"{"type":"object","additionalProperties":false,"properties":{
"pooling":{"type":["string","array"],"default":"mean",
"description":"mean, cls, max, mean_sqrt_len_tokens, weightedmean, lasttoken, pooled; of a list the vectors are put end to end"},
"modules":{"type":"array","default":[],"description":"what follows the pooling, as sentence-transformers names it: dense, layer_norm, normalize"},
"truncate":{"type":"integer","minimum":0,"default":0,"description":"numbers that are kept of a vector; 0: all"},
"normalize":{"type":"boolean","default":true,"description":"Euclidean length 1"},
"max_length":{"type":"integer","minimum":1,"default":256,"description":"tokens, special tokens included; longer texts are cut"},
"prompt":{"type":"string","default":"","description":"what precedes every text"},
"pool_prompt":{"type":"boolean","default":true,"description":"whether the prompt's tokens are pooled too"},
"lower_case":{"type":"boolean","default":false,"description":"texts in lower case"},
"verbatim":{"type":"array","items":{"type":"string"},"default":[],"description":"tokens that keep their capitals with lower_case"}}}"#;
    type Options = Options;

    fn new(options: Options, _: Option<Value>) -> Result<Self> {
        if options.max_length == 0 {
            return Err(out_of_range("max_length", "at least 1", 0));
        }
        if options.poolings().is_empty() {
            return Err(out_of_range("pooling", "at least one", "an empty list"));
        }
        Ok(Self { max_length: options.max_length, options, modules: Vec::new() })
    }

    fn columns(&self) -> Vec<Column> {
        let names = ["text", "sentence", "content", "review", "query", "question", "title"];
        vec![Column {
            role: "text".to_owned(),
            names: names.map(str::to_owned).to_vec(),
            required: true,
            target: false,
        }]
    }

    fn observe(&mut self, _: &Record) -> Result<()> {
        Ok(())
    }

    fn observed(&mut self) -> Result<()> {
        Ok(())
    }

    fn state(&self) -> Result<Value> {
        Ok(json!({}))
    }

    fn info(&self) -> AppInfo {
        let pooled = self.options.poolings().contains(&Pooling::Pooled);
        AppInfo { want: if pooled { abi::ET_WANT_POOLED } else { 0 }, ..AppInfo::default() }
    }

    fn features(
        &self,
        _: &mut Context<'_>,
        tokenizer: &Tokenizer,
        record: &Record,
        rows: &mut Rows,
    ) -> Result<()> {
        let mut row = rows.add()?;
        let text = text_of(record, "text")?;
        let text = text.ok_or_else(|| Error::record("text", "a string", "nothing"))?;
        if !self.options.pool_prompt && !self.options.prompt.is_empty() {
            // As sentence-transformers counts them: what the prompt alone gives, but for the token that ends a text.
            let alone = tokenizer.encode(&self.options.prepared(""), None, self.max_length)?;
            let ends = alone.special().last().is_some_and(|&special| special == 1);
            row.put_i64("prompt", &[(alone.len() - usize::from(ends)) as i64])?;
        }
        let encoding = tokenizer.encode(&self.options.prepared(&text), None, self.max_length)?;
        row.put_tokens("ids", encoding.ids())?;
        row.put_tokens("segments", encoding.segments())
    }

    fn build(&mut self, scope: &Scope, model: &ModelInfo) -> Result<()> {
        if self.options.poolings().contains(&Pooling::Pooled) && !model.pooled {
            return Err(Error::bad_input(
                "pooling: this model has no pooler; use \"mean\" or \"cls\"",
            ));
        }
        self.max_length = self.options.max_length.min(model.max_positions);
        let mut width = model.hidden_size * self.options.poolings().len();
        self.modules = self
            .options
            .modules
            .iter()
            .map(|options| Module::build(options, scope, &mut width))
            .collect::<Result<_>>()?;
        Ok(())
    }

    fn head(&self, _: &Call<'_>, batch: &Map, outputs: &mut Map) -> Result<()> {
        let tokens = Tokens::of(batch, outputs.get("last")?)?;
        let pooled: Vec<Tensor> = self
            .options
            .poolings()
            .iter()
            .map(|&pooling| tokens.pool(pooling, || outputs.get("pooled")))
            .collect::<Result<_>>()?;
        let mut vectors = match &pooled[..] {
            [one] => one.clone(),
            several => Tensor::concat(&several.iter().collect::<Vec<_>>(), 1)?,
        };
        for module in &self.modules {
            vectors = module.forward(&vectors)?;
        }
        let width = vectors.extent(1)?;
        if (1..width).contains(&self.options.truncate) {
            vectors = vectors.narrow(1, 0, self.options.truncate)?.contiguous()?;
        }
        if self.options.normalize {
            vectors = normalized(&vectors)?;
        }
        outputs.put("vectors", &vectors)
    }

    fn decode(&self, _: &Map, outputs: &Map) -> Result<Vec<Record>> {
        let vectors = outputs.get("vectors")?;
        let width = vectors.extent(1)?;
        let values = vectors.to_vec::<f32>()?;
        Ok(values
            .chunks_exact(width)
            .map(|vector| {
                let mut record = Record::new();
                record.insert("vector".to_owned(), json!(vector));
                record
            })
            .collect())
    }
}

/// The text in lower case, but for the `verbatim` tokens in it.
fn lower(text: &str, verbatim: &[String]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let token = verbatim.iter().find(|token| !token.is_empty() && rest.starts_with(&***token));
        let len = match token {
            Some(token) => {
                out.push_str(token);
                token.len()
            }
            // One by one, as the tokenizers do it: a sigma at the end of a word is no special case.
            None => {
                out.extend(next.to_lowercase());
                next.len_utf8()
            }
        };
        rest = &rest[len..];
    }
    out
}

easytransfer_plugin::export! {
    id: "app-embed",
    apps: [Embed],
}

#[cfg(test)]
mod tests {
    use super::lower;

    #[test]
    fn lower_case_leaves_verbatim_tokens_alone() {
        let verbatim = ["[MASK]".to_owned(), String::new()];
        assert_eq!(lower("A [MASK] ÉΣ İ [Mask]", &verbatim), "a [MASK] éσ i\u{307} [mask]");
    }
}
