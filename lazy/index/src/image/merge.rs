//! Layers stacked as an overlay stacks them: one tree, whiteouts and opaque directories resolved and gone.
//!
//! For each layer, the lowest first: implied directories take the attributes the tree so far has for them
//! (`storage_layer::settle`), then the layer goes on top. All walks keep their own stack: an image may nest deeper than a
//! thread's.

use super::tree::{Directory, Node, Place, ROOT, Source, Tree, What};
use crate::{IndexError, LayerPart, Limits};

/// The merged tree of `layers`, the lowest first. Its names lead to directories and leaves only.
pub(super) fn merge<'a>(layers: &[LayerPart<'a>], limits: &Limits) -> Result<Tree<'a>, IndexError> {
    let mut merged = Tree::empty(limits);
    for (number, layer) in layers.iter().enumerate() {
        let number = u32::try_from(number).map_err(|_| too_many(layers.len(), limits))?;
        let mut upper = Tree::of_layer(number, layer.toc, limits)?;
        settle(&mut upper, &merged);
        stack(&mut merged, upper).map_err(|_| IndexError::Limit {
            what: "files and directories of the image",
            actual: limits.nodes_max as u64 + 1,
            limit: limits.nodes_max as u64,
        })?;
    }
    Ok(merged)
}

pub(super) fn too_many(layers: usize, limits: &Limits) -> IndexError {
    IndexError::Limit { what: "layers of the image", actual: layers as u64, limit: limits.layers_max as u64 }
}

/// Gives implied directories the attributes of the same directory further down, unless something above hides it.
fn settle(upper: &mut Tree<'_>, lower: &Tree<'_>) {
    let mut todo: Vec<(Place, Place)> = vec![(ROOT, ROOT)];
    while let Some((above, below)) = todo.pop() {
        let (Some(own), Some(others)) = (upper.directory(above), lower.directory(below)) else { continue };
        if own.opaque {
            continue;
        }
        let mut taken: Vec<(Place, Option<Source>)> = Vec::new();
        for (name, place) in &own.names {
            let (Some(child), Some(other)) = (upper.directory(*place), others.names.get(name)) else {
                continue;
            };
            if lower.directory(*other).is_none() {
                continue;
            }
            if child.implied {
                taken.push((*place, lower.nodes[*other as usize].source));
            }
            todo.push((*place, *other));
        }
        for (place, source) in taken {
            upper.nodes[place as usize].source = source;
        }
    }
}

/// Puts `upper` on top of `merged`.
fn stack<'a>(merged: &mut Tree<'a>, mut upper: Tree<'a>) -> Result<(), &'static str> {
    if let Some(source) = upper.nodes[ROOT as usize].source {
        merged.nodes[ROOT as usize].source = Some(source);
    }
    // Where a node of `upper` has gone: hard links name one node several times.
    let mut moved: Vec<Option<Place>> = vec![None; upper.nodes.len()];
    let mut todo: Vec<(Place, Place)> = vec![(ROOT, ROOT)];
    while let Some((from, to)) = todo.pop() {
        let Some(own) = upper.directory_mut(from) else { continue };
        let own = std::mem::take(own);
        // Overlayfs merges the roots of its layers whatever they say of themselves.
        if own.opaque
            && from != ROOT
            && let Some(target) = merged.directory_mut(to)
        {
            target.names.clear();
        }
        for (name, place) in own.names {
            let there = merged.directory(to).and_then(|target| target.names.get(name).copied());
            let node = &upper.nodes[place as usize];
            let next = match &node.what {
                What::Whiteout => {
                    if let Some(target) = merged.directory_mut(to) {
                        target.names.remove(name);
                    }
                    continue;
                }
                What::Directory(_) => {
                    let merges = there.filter(|there| merged.directory(*there).is_some());
                    let next = match merges {
                        Some(there) => there,
                        None => {
                            merged.add(Node { source: None, what: What::Directory(Directory::default()) })?
                        }
                    };
                    merged.nodes[next as usize].source = node.source;
                    todo.push((place, next));
                    next
                }
                What::Leaf(target) => match moved[place as usize] {
                    Some(next) => next,
                    None => merged.add(Node { source: node.source, what: What::Leaf(*target) })?,
                },
            };
            moved[place as usize] = Some(next);
            if let Some(target) = merged.directory_mut(to) {
                target.names.insert(name, next);
            }
        }
    }
    Ok(())
}
