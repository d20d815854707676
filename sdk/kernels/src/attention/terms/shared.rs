//! Gradients that all runs share: a few groups of runs have sums of their own, which are added in order at the end.

use std::ops::Range;

use crate::attention::shape::Run;
use crate::attention::terms::TermGradients;
use crate::attention::terms::head::HeadGradients;
use crate::attention::terms::prepared::Prepared;
use crate::elementwise::add_assign;
use crate::runs::SharedRows;
use crate::{Float, Result};

/// Most groups. More would keep more threads busy where there are few heads, but each has tables of its own.
const GROUPS: usize = 4;

/// The gradients and the sums of the groups.
pub(in crate::attention) struct Shared<'a, F> {
    /// The runs of each group.
    pub(in crate::attention) groups: Vec<Range<usize>>,
    into: TermGradients<'a, F>,
    /// Sums [groups, heads, places] of the gradient of the bias.
    bias: Vec<F>,
    bias_sizes: [usize; 2],
    /// Tables of the groups after the first, which uses the gradient itself.
    keys: Vec<Vec<F>>,
    queries: Vec<Vec<F>>,
    heads: usize,
    width: usize,
}

/// Where the tasks write: for each table the sums of every group.
pub(in crate::attention) struct Sinks<'a, F> {
    bias: Option<SharedRows<'a, F>>,
    bias_sizes: [usize; 2],
    keys: Vec<SharedRows<'a, F>>,
    queries: Vec<SharedRows<'a, F>>,
    query: Option<SharedRows<'a, F>>,
    segments: Option<SharedRows<'a, F>>,
}

impl<'a, F: Float> Shared<'a, F> {
    /// `into` holds zeros.
    pub(in crate::attention) fn new(
        prepared: &Prepared<'_, F>,
        into: TermGradients<'a, F>,
        runs: &[Run],
    ) -> Self {
        let summed = [&into.bias, &into.position_keys, &into.position_queries];
        let groups = if summed.iter().any(|x| x.is_some()) {
            groups(runs, GROUPS)
        } else {
            (0..runs.len()).map(|run| run..run + 1).collect()
        };
        let more = groups.len().saturating_sub(1);
        let tables = |first: &Option<&mut [F]>| -> Vec<Vec<F>> {
            first.iter().flat_map(|x| (0..more).map(|_| vec![F::ZERO; x.len()])).collect()
        };
        let bias_sizes = prepared.bias_sums();
        let bias_len = if into.bias.is_some() { bias_sizes.iter().product() } else { 0 };
        Self {
            bias: vec![F::ZERO; groups.len() * bias_len],
            bias_sizes,
            keys: tables(&into.position_keys),
            queries: tables(&into.position_queries),
            heads: prepared.shape.heads,
            width: prepared.shape.width(),
            groups,
            into,
        }
    }

    pub(in crate::attention) fn sinks(&mut self) -> Sinks<'_, F> {
        let Self { into, bias, bias_sizes, keys, queries, heads, width, .. } = self;
        Sinks {
            bias: into.bias.is_some().then(|| SharedRows::new(bias, bias_sizes[1])),
            bias_sizes: *bias_sizes,
            keys: tables(&mut into.position_keys, keys, *width),
            queries: tables(&mut into.position_queries, queries, *width),
            query: into.position_query.as_deref_mut().map(|x| SharedRows::new(x, *width)),
            segments: into.segments.as_deref_mut().map(|x| SharedRows::new(x, 2 * *heads)),
        }
    }

    /// Adds the groups' sums, in order.
    pub(in crate::attention) fn finish(self, prepared: &Prepared<'_, F>) -> Result {
        let TermGradients { bias, position_keys, position_queries, .. } = self.into;
        if let Some(bias) = bias {
            let group = self.bias_sizes.iter().product::<usize>().max(1);
            self.bias.chunks_exact(group).for_each(|sums| prepared.fold_bias(sums, bias));
        }
        for (first, more) in [(position_keys, self.keys), (position_queries, self.queries)] {
            let Some(first) = first else { continue };
            more.iter().try_for_each(|table| add_assign(first, table))?;
        }
        Ok(())
    }
}

/// The first group's table and those of the others.
fn tables<'s, F>(
    first: &'s mut Option<&mut [F]>,
    more: &'s mut [Vec<F>],
    width: usize,
) -> Vec<SharedRows<'s, F>> {
    let first = first.as_deref_mut().into_iter();
    let more = more.iter_mut().map(Vec::as_mut_slice);
    first.chain(more).map(|table| SharedRows::new(table, width)).collect()
}

impl<F: Float> Sinks<'_, F> {
    /// Where one head of the runs of one group writes.
    ///
    /// # Safety
    /// No other task has the same head of the same group meanwhile.
    pub(in crate::attention) unsafe fn of(
        &self,
        group: usize,
        head: usize,
    ) -> HeadGradients<'_, F> {
        let [heads, places] = self.bias_sizes;
        HeadGradients {
            // SAFETY: the row belongs to this head of this group, by the caller's promise.
            bias: self
                .bias
                .as_ref()
                .map(|bias| unsafe { bias.segment(group * heads + head, 0..places) }),
            position_keys: self.keys.get(group),
            position_query: self.query.as_ref(),
            position_queries: self.queries.get(group),
            segments: self.segments.as_ref(),
        }
    }
}

/// Neighbouring runs in at most `most` groups of about the same work.
fn groups(runs: &[Run], most: usize) -> Vec<Range<usize>> {
    let work = |run: &Run| run.queries.len() * run.keys.len();
    let total: usize = runs.iter().map(work).sum();
    let (mut groups, mut begin, mut done) = (Vec::new(), 0, 0);
    for (i, run) in runs.iter().enumerate() {
        done += work(run);
        if done * most >= total * (groups.len() + 1) && groups.len() + 1 < most {
            groups.push(begin..i + 1);
            begin = i + 1;
        }
    }
    if begin < runs.len() {
        groups.push(begin..runs.len());
    }
    groups
}
