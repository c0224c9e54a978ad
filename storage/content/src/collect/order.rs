//! In which order a sweep removes: whoever refers goes before what it refers to.
//!
//! A sweep is cut into batches, and between two of them clients see what is left. In this order what is left never refers
//! to something that the sweep took: a manifest goes before its layers, a snapshot before the one it stands on. (Things
//! that refer to each other in a circle have no such order and go in any.)

use std::collections::HashMap;

use super::graph::{Facts, Node};

/// Sorts `garbage` so that each comes before those of them that it refers to.
pub(super) fn referrers_first<'a>(
    garbage: impl Iterator<Item = &'a Node>,
    facts: &HashMap<Node, Facts>,
) -> Vec<&'a Node> {
    let garbage: Vec<&Node> = garbage.collect();
    let places: HashMap<&Node, usize> = garbage.iter().enumerate().map(|(at, node)| (*node, at)).collect();
    let referred = |at: usize| -> Vec<usize> {
        let Some(facts) = facts.get(garbage[at]) else { return Vec::new() };
        facts.firm.iter().chain(&facts.references).filter_map(|node| places.get(node).copied()).collect()
    };
    let mut seen = vec![false; garbage.len()];
    // Finished ones, each after all it refers to: the order wanted, from its end.
    let mut finished = Vec::with_capacity(garbage.len());
    for start in 0..garbage.len() {
        if std::mem::replace(&mut seen[start], true) {
            continue;
        }
        let mut path = vec![(start, referred(start))];
        while let Some((at, open)) = path.last_mut() {
            match open.pop() {
                Some(next) if std::mem::replace(&mut seen[next], true) => {}
                Some(next) => path.push((next, referred(next))),
                None => {
                    finished.push(garbage[*at]);
                    path.pop();
                }
            }
        }
    }
    finished.reverse();
    finished
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_comes_before_what_refers_to_it(edges in proptest::collection::vec((0..30_usize, 0..30_usize), 0..60)) {
            let node = |at: usize| Node::image(&"n".parse().unwrap(), &at.to_string());
            let all: Vec<Node> = (0..30).map(node).collect();
            let mut facts: HashMap<Node, Facts> = HashMap::new();
            for (from, to) in edges.iter().filter(|(from, to)| from < to) {
                facts.entry(node(*from)).or_default().references.push(node(*to));
            }
            let order = referrers_first(all.iter(), &facts);
            prop_assert_eq!(order.len(), 30);
            let place = |at: usize| order.iter().position(|found| **found == node(at)).unwrap();
            for (from, to) in edges.iter().filter(|(from, to)| from < to) {
                prop_assert!(place(*from) < place(*to));
            }
        }
    }

    #[test]
    fn a_circle_and_a_chain_of_100_000_have_an_end() {
        let node = |at: usize| Node::image(&"n".parse().unwrap(), &at.to_string());
        let all: Vec<Node> = (0..100_000).map(node).collect();
        let facts = (0..100_000)
            .map(|at| (node(at), Facts { firm: vec![node((at + 1) % 100_000)], ..Facts::default() }))
            .collect();
        assert_eq!(referrers_first(all.iter(), &facts).len(), 100_000);
    }
}
