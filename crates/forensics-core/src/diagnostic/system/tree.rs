//! The order in which processes are shown: each below its parent, siblings the busiest first.
//!
//! Processes start and exit while they are read. So a parent may be missing, and two processes
//! whose pids were reused may each be the other's ancestor. Even then each process has exactly one
//! row. Nothing recurses, because a chain of forks may be very long.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::iter;

use super::processes::Process;

#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) process: &'a Process,
    /// How many of its ancestors have a row above it.
    pub(super) depth: usize,
}

/// The processes that have a row.
pub(super) struct Tree<'a> {
    by_pid: HashMap<i32, &'a Process>,
    /// The children by the parent's pid, the busiest first.
    children: BTreeMap<i32, Vec<&'a Process>>,
}

impl<'a> Tree<'a> {
    pub(super) fn of(processes: impl IntoIterator<Item = &'a Process>) -> Self {
        let mut processes: Vec<_> = processes.into_iter().collect();
        processes.sort_by_key(|process| process.rank());
        let by_pid = processes.iter().map(|&process| (process.stat.pid, process)).collect();
        let mut children = BTreeMap::<_, Vec<_>>::new();
        for process in processes {
            children.entry(process.stat.ppid).or_default().push(process);
        }
        Self { by_pid, children }
    }

    /// A row for process `pid`, if there is one, and for each of its descendants.
    pub(super) fn below(&self, pid: i32) -> Vec<Row<'a>> {
        match self.by_pid.get(&pid) {
            Some(&process) => self.walk([process]),
            None => self.walk(self.children_of(pid).iter().copied()),
        }
    }

    /// A row for each process.
    pub(super) fn rows(&self) -> Vec<Row<'a>> {
        let has_no_parent = |ppid: &i32| !self.by_pid.contains_key(ppid);
        let roots = self.children.iter().filter(|(ppid, _)| has_no_parent(ppid));
        // A process that is not below a root is in a ring. Any process of the ring may come first.
        let rings = self.children.values().flatten();
        self.walk(roots.flat_map(|(_, roots)| roots).chain(rings).copied())
    }

    fn children_of(&self, pid: i32) -> &[&'a Process] {
        self.children.get(&pid).map_or(&[], Vec::as_slice)
    }

    fn walk(&self, from: impl IntoIterator<Item = &'a Process>) -> Vec<Row<'a>> {
        let mut rows = Vec::new();
        let mut seen = HashSet::new();
        for process in from {
            let mut next = vec![Row { process, depth: 0 }];
            while let Some(row) = next.pop() {
                if !seen.insert(row.process.stat.pid) {
                    continue;
                }
                rows.push(row);
                let depth = row.depth + 1;
                let children = self.children_of(row.process.stat.pid).iter().rev();
                next.extend(children.map(|&process| Row { process, depth }));
            }
        }
        rows
    }

    /// A tree of the `top` busiest processes, not counting idle kernel threads, and their nearest
    /// `ancestors`.
    pub(super) fn busiest(&self, top: usize, ancestors: usize) -> Self {
        let mut busy: Vec<_> =
            self.by_pid.values().filter(|process| !process.is_idle_kernel_thread()).collect();
        busy.sort_by_key(|process| process.rank());
        let mut wanted = HashMap::new();
        for process in busy.into_iter().take(top) {
            let parent = |process: &&'a Process| self.by_pid.get(&process.stat.ppid).copied();
            let line = iter::successors(Some(*process), parent).take(1 + ancestors);
            wanted.extend(line.map(|process| (process.stat.pid, process)));
        }
        Self::of(wanted.into_values())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Processes, each from a pid, a parent's pid and a CPU use.
    fn processes(of: &[(i32, i32, u64)]) -> Vec<Process> {
        of.iter().map(|&(pid, ppid, cpu)| Process::made_up(pid, ppid, cpu)).collect()
    }

    fn pids(rows: &[Row<'_>]) -> Vec<(i32, usize)> {
        rows.iter().map(|row| (row.process.stat.pid, row.depth)).collect()
    }

    fn wanted(tree: &Tree<'_>) -> Vec<i32> {
        let mut pids: Vec<_> = tree.by_pid.keys().copied().collect();
        pids.sort_unstable();
        pids
    }

    #[test]
    fn rows_follow_their_parents_and_the_busiest_come_first() {
        let all = processes(&[(1, 0, 0), (5, 1, 3), (7, 1, 9), (9, 5, 0), (4, 1, 3), (2, 0, 1)]);
        let tree = Tree::of(&all);
        assert_eq!(pids(&tree.rows()), [(2, 0), (1, 0), (7, 1), (4, 1), (5, 1), (9, 2)]);
        assert_eq!(pids(&tree.below(5)), [(5, 0), (9, 1)]);
        assert_eq!(pids(&tree.below(77)), []);
    }

    #[test]
    fn a_process_whose_parent_is_missing_is_a_root() {
        let all = processes(&[(1, 0, 0), (10, 99, 0), (11, 10, 0), (12, 99, 1)]);
        let tree = Tree::of(all.iter().filter(|process| process.stat.pid != 10));
        assert_eq!(pids(&tree.rows()), [(1, 0), (11, 0), (12, 0)]);
        let tree = Tree::of(&all);
        assert_eq!(pids(&tree.below(99)), [(12, 0), (10, 0), (11, 1)], "99 itself has exited");
    }

    #[test]
    fn rings_end_and_keep_every_row() {
        let all = processes(&[(1, 0, 0), (3, 3, 0), (5, 6, 0), (6, 7, 0), (7, 5, 0), (8, 6, 0)]);
        let tree = Tree::of(&all);
        assert_eq!(
            pids(&tree.rows()),
            [(1, 0), (3, 0), (7, 0), (6, 1), (5, 2), (8, 2)],
            "each once"
        );
        assert_eq!(pids(&tree.below(6)), [(6, 0), (5, 1), (7, 2), (8, 1)]);
        assert_eq!(wanted(&tree.busiest(1, 32)).len(), 1);
    }

    #[test]
    fn a_long_chain_of_forks_is_walked() {
        let chain: Vec<_> = (1..=10_000).map(|pid| (pid, pid - 1, 0)).collect();
        let all = processes(&chain);
        let rows = Tree::of(&all).below(1);
        assert_eq!(rows.len(), 10_000);
        assert_eq!(rows[9_999].depth, 9_999);
    }

    #[test]
    fn the_busiest_bring_their_nearest_ancestors() {
        let all = processes(&[(1, 0, 0), (2, 1, 0), (3, 2, 0), (4, 3, 9), (5, 1, 0), (6, 1, 8)]);
        let wanted = |top, ancestors| wanted(&Tree::of(&all).busiest(top, ancestors));
        assert_eq!(wanted(2, 9), [1, 2, 3, 4, 6]);
        assert_eq!(wanted(1, 1), [3, 4]);
        assert!(wanted(0, 9).is_empty());
    }

    #[test]
    fn kernel_threads_have_a_row_only_if_they_are_busy_or_blocked() {
        let mut all = processes(&[(1, 0, 0), (2, 0, 0), (3, 2, 0), (4, 2, 1), (5, 2, 0)]);
        all[1..4].iter_mut().for_each(|process| process.kernel_thread('I'));
        all[4].kernel_thread('D');
        assert_eq!(wanted(&Tree::of(&all).busiest(60, 0)), [1, 4, 5]);
    }
}
