//! Runs of batches and caches in another order.

use easytransfer_plugin::{Error, Map, Result, Tensor};

/// The text up to and including the last '/', the name space of an entry.
pub fn space(name: &str) -> &str {
    name.rfind('/').map_or("", |at| &name[..=at])
}

/// Rows of the runs `order` among runs with these starts, and the starts that those have then.
fn rows_of(starts: &[i64], order: &[usize]) -> (Vec<i64>, Vec<i64>) {
    let (mut rows, mut new_starts) = (Vec::new(), vec![0]);
    for &run in order {
        rows.extend(starts[run]..starts[run + 1]);
        new_starts.push(rows.len() as i64);
    }
    (rows, new_starts)
}

fn integers(values: &[i64]) -> Result<Tensor> {
    Tensor::from_slice(values, &[values.len()])
}

/// The runs `order` of a map's entries, in which a run may stand several times or not at all: in a name space with
/// "starts" the entries with one row per token, elsewhere those with one per run.
pub fn gather(map: &Map, order: &[usize]) -> Result<Map> {
    let picked: Vec<i64> = order.iter().map(|&run| run as i64).collect();
    let picked = integers(&picked)?;
    let mut gathered = Map::new()?;
    // Name spaces of a cache mostly have the same runs.
    let mut latest: Option<(Vec<i64>, [Tensor; 2])> = None;
    for name in map.names() {
        let entry = map.get(&name)?;
        let starts_name = format!("{}starts", space(&name));
        let Some(starts) = map.find(&starts_name)? else {
            gathered.put(&name, &entry.index_select(0, &picked)?)?;
            continue;
        };
        let starts = starts.to_vec::<i64>()?;
        if order.iter().any(|&run| run + 1 >= starts.len()) {
            let found = starts.len().saturating_sub(1);
            let message = format!(
                "{starts_name}: expected as many runs as there are to continue, found {found}"
            );
            return Err(Error::invalid(message));
        }
        let tokens = starts.last().copied().unwrap_or(0) as usize;
        let known = latest.take_if(|(known, _)| *known == starts);
        let (starts, [rows, new_starts]) = match known {
            Some(known) => known,
            None => {
                let (rows, new_starts) = rows_of(&starts, order);
                (starts, [integers(&rows)?, integers(&new_starts)?])
            }
        };
        if name == starts_name {
            gathered.put(&name, &new_starts)?;
        } else if entry.extent(0)? == tokens {
            gathered.put(&name, &entry.index_select(0, &rows)?)?;
        } else {
            gathered.put(&name, &entry.index_select(0, &picked)?)?;
        }
        latest = Some((starts, [rows, new_starts]));
    }
    Ok(gathered)
}

/// The entries of a batch but for what belongs to the tokens of one name space.
pub fn without_tokens(batch: &Map, of: &str) -> Result<Map> {
    let tokens = batch.get(&format!("{of}ids"))?.len();
    let mut rest = Map::new()?;
    for name in batch.names() {
        let entry = batch.get(&name)?;
        let own = name.strip_prefix(of).filter(|_| space(&name) == of);
        if own != Some("starts") && (own.is_none() || entry.extent(0)? != tokens) {
            rest.put(&name, &entry)?;
        }
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_follow_their_runs() {
        let (rows, starts) = rows_of(&[0, 2, 2, 5], &[2, 0, 2, 1]);
        assert_eq!(rows, [2, 3, 4, 0, 1, 2, 3, 4]);
        assert_eq!(starts, [0, 3, 5, 8, 8]);
        assert_eq!(rows_of(&[0, 1], &[]), (vec![], vec![0]));
    }

    #[test]
    fn names_lie_in_spaces() {
        assert_eq!([space("a/b/ids"), space("ids"), space("a/")], ["a/b/", "", "a/"]);
    }
}
