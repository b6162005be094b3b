//! The order in which processes are shown: each below its parent, siblings the busiest first.
//!
//! Processes come and go while they are read, so a parent may be missing, and with numbers used
//! again two may each be the other's ancestor. Every process asked for has its row nonetheless,
//! and only one. Nothing recurses: a chain of forks may be as long as the machine allows.

use super::one::{Process, Rank};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    /// Place in the list of processes.
    pub(super) at: usize,
    /// Ancestors above it that have a row too.
    pub(super) depth: usize,
}

/// The processes that have a row, those with the same parent side by side.
pub(super) struct Tree<'a> {
    processes: &'a [Process],
    by_parent: Vec<usize>,
}

impl<'a> Tree<'a> {
    /// A tree of those `processes`, given in the order of their pid, that are `wanted`.
    pub(super) fn of(processes: &'a [Process], wanted: &dyn Fn(usize) -> bool) -> Self {
        let by_parent = in_order(processes, &|at| wanted(at).then(|| processes[at].ppid));
        Self { processes, by_parent }
    }

    /// A row each for process `pid`, where there is one, and all its descendants.
    pub(super) fn below(&self, pid: i32) -> Vec<Row> {
        let mut walk = Walk::over(self);
        match find(self.processes, pid) {
            Some(at) => walk.from(at),
            None => self.children(pid).iter().for_each(|&at| walk.from(at)),
        }
        walk.rows
    }

    /// A row for each process of the tree.
    pub(super) fn rows(&self) -> Vec<Row> {
        let mut walk = Walk::over(self);
        let mut has_row = vec![false; self.processes.len()];
        self.by_parent.iter().for_each(|&at| has_row[at] = true);
        let parent_of = |at: usize| find(self.processes, self.processes[at].ppid);
        let is_root = |at: &&usize| parent_of(**at).is_none_or(|parent| !has_row[parent]);
        self.by_parent.iter().filter(is_root).for_each(|&at| walk.from(at));
        // What no root leads to is a ring: it is entered anywhere.
        self.by_parent.iter().for_each(|&at| walk.from(at));
        walk.rows
    }

    fn children(&self, pid: i32) -> &[usize] {
        let parent = |&at: &usize| self.processes[at].ppid;
        let from = self.by_parent.partition_point(|at| parent(at) < pid);
        let to = self.by_parent.partition_point(|at| parent(at) <= pid);
        &self.by_parent[from..to]
    }
}

struct Walk<'a> {
    tree: &'a Tree<'a>,
    seen: Vec<bool>,
    rows: Vec<Row>,
    next: Vec<Row>,
}

impl<'a> Walk<'a> {
    fn over(tree: &'a Tree<'a>) -> Self {
        let seen = vec![false; tree.processes.len()];
        Self { tree, seen, rows: Vec::new(), next: Vec::new() }
    }

    fn from(&mut self, at: usize) {
        self.next.push(Row { at, depth: 0 });
        while let Some(row) = self.next.pop() {
            if std::mem::replace(&mut self.seen[row.at], true) {
                continue;
            }
            self.rows.push(row);
            let children = self.tree.children(self.tree.processes[row.at].pid);
            let depth = row.depth + 1;
            self.next.extend(children.iter().rev().map(|&at| Row { at, depth }));
        }
    }
}

/// Whether each process has a row: the `top` busiest, idle kernel threads not counted, and their
/// nearest `ancestors`.
pub(super) fn busiest(processes: &[Process], top: usize, ancestors: usize) -> Vec<bool> {
    let mut by_cpu =
        in_order(processes, &|at| (!processes[at].is_idle_kernel_thread()).then_some(0));
    by_cpu.truncate(top);
    let mut wanted = vec![false; processes.len()];
    for at in by_cpu {
        wanted[at] = true;
        let parent = |&at: &usize| find(processes, processes[at].ppid);
        std::iter::successors(parent(&at), parent)
            .take(ancestors)
            .for_each(|ancestor| wanted[ancestor] = true);
    }
    wanted
}

/// The places of the processes that are of a `class`, one class after another, each by rank.
fn in_order(processes: &[Process], class: &dyn Fn(usize) -> Option<i32>) -> Vec<usize> {
    let ranked = |at: usize| Some((class(at)?, processes[at].rank(), at));
    let mut ranked: Vec<(i32, Rank, usize)> = (0..processes.len()).filter_map(ranked).collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, _, at)| at).collect()
}

fn find(processes: &[Process], pid: i32) -> Option<usize> {
    processes.binary_search_by_key(&pid, |p| p.pid).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Processes of a pid, a parent's pid and a CPU use.
    fn processes(of: &[(i32, i32, u32)]) -> Vec<Process> {
        let process = |&(pid, ppid, cpu_permille)| Process::made_up(pid, ppid, cpu_permille);
        let mut all: Vec<Process> = of.iter().map(process).collect();
        all.sort_by_key(|p| p.pid);
        all
    }

    fn pids(processes: &[Process], rows: &[Row]) -> Vec<(i32, usize)> {
        rows.iter().map(|row| (processes[row.at].pid, row.depth)).collect()
    }

    #[test]
    fn rows_follow_their_parents_and_the_busiest_come_first() {
        let all = processes(&[(1, 0, 0), (5, 1, 3), (7, 1, 9), (9, 5, 0), (4, 1, 3), (2, 0, 1)]);
        let tree = Tree::of(&all, &|_| true);
        assert_eq!(pids(&all, &tree.rows()), [(2, 0), (1, 0), (7, 1), (4, 1), (5, 1), (9, 2)]);
        assert_eq!(pids(&all, &tree.below(5)), [(5, 0), (9, 1)]);
        assert_eq!(pids(&all, &tree.below(77)), []);
    }

    #[test]
    fn a_process_without_a_parent_in_sight_is_a_root() {
        let all = processes(&[(1, 0, 0), (10, 99, 0), (11, 10, 0), (12, 99, 1)]);
        let tree = Tree::of(&all, &|at| all[at].pid != 10);
        assert_eq!(pids(&all, &tree.rows()), [(1, 0), (11, 0), (12, 0)]);
        let tree = Tree::of(&all, &|_| true);
        assert_eq!(pids(&all, &tree.below(99)), [(12, 0), (10, 0), (11, 1)], "99 itself has gone");
    }

    #[test]
    fn rings_neither_loop_nor_lose_a_row() {
        let all = processes(&[(1, 0, 0), (3, 3, 0), (5, 6, 0), (6, 7, 0), (7, 5, 0), (8, 6, 0)]);
        let tree = Tree::of(&all, &|_| true);
        assert_eq!(
            pids(&all, &tree.rows()),
            [(1, 0), (3, 0), (7, 0), (6, 1), (5, 2), (8, 2)],
            "each once"
        );
        assert_eq!(pids(&all, &tree.below(6)), [(6, 0), (5, 1), (7, 2), (8, 1)]);
        assert_eq!(busiest(&all, 1, 32).iter().filter(|&&wanted| wanted).count(), 1);
    }

    #[test]
    fn a_long_chain_of_forks_is_walked() {
        let chain: Vec<_> = (1..=10_000).map(|pid| (pid, pid - 1, 0)).collect();
        let all = processes(&chain);
        let rows = Tree::of(&all, &|_| true).below(1);
        assert_eq!(rows.len(), 10_000);
        assert_eq!(rows[9_999].depth, 9_999);
    }

    #[test]
    fn the_busiest_bring_their_nearest_ancestors() {
        let all = processes(&[(1, 0, 0), (2, 1, 0), (3, 2, 0), (4, 3, 9), (5, 1, 0), (6, 1, 8)]);
        let wanted = |top, ancestors| -> Vec<i32> {
            let wanted = busiest(&all, top, ancestors);
            all.iter().zip(wanted).filter(|(_, w)| *w).map(|(p, _)| p.pid).collect()
        };
        assert_eq!(wanted(2, 9), [1, 2, 3, 4, 6]);
        assert_eq!(wanted(1, 1), [3, 4]);
        assert!(wanted(0, 9).is_empty());
    }

    #[test]
    fn kernel_threads_have_a_row_only_where_they_work_or_hang() {
        let mut all = processes(&[(1, 0, 0), (2, 0, 0), (3, 2, 0), (4, 2, 1), (5, 2, 0)]);
        all[1..].iter_mut().for_each(|p| p.kernel_thread = true);
        all[4].state = 'D';
        assert_eq!(busiest(&all, 60, 0), [true, false, false, true, true]);
    }
}
