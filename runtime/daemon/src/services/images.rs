//! `containerd.services.images.v1`: names that point to content. Whether the content is here is not checked.

use std::borrow::Cow;

use prost_types::FieldMask;
use runtime_api::containerd::services::images::v1 as wire;
use runtime_engine::Engine;
use storage_content::{ImageRecord, LabelChange, StoreError};
use storage_model::{Descriptor, Digest, Labels};
use tonic::{Request, Response, Status};

use crate::call::{CallError, blocking, space};
use crate::convert::{
    checked_labels, descriptor_in, descriptor_out, field, filters, immutable, label, label_change, labels_in,
    labels_out, paths, required, time_out,
};
use crate::status::status;

/// The service.
#[derive(Clone)]
pub(crate) struct ImagesService {
    engine: Engine,
}

impl ImagesService {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine }
    }
}

fn image_out(record: ImageRecord) -> wire::Image {
    wire::Image {
        name: record.name,
        labels: labels_out(record.labels),
        target: Some(descriptor_out(record.target)),
        created_at: time_out(record.created),
        updated_at: time_out(record.updated),
    }
}

fn image_field<'a>(record: &'a ImageRecord, path: &[String]) -> Option<Cow<'a, str>> {
    match (path[0].as_str(), path.get(1).map(String::as_str)) {
        ("name", _) => field(&record.name),
        ("target", Some("digest")) => Some(Cow::from(record.target.digest.to_string())),
        ("target", Some("mediatype")) => field(&record.target.media_type),
        ("labels", _) => label(&record.labels, &path[1..]),
        ("annotations", _) => label(&record.target.annotations, &path[1..]),
        _ => None,
    }
}

/// What an update changes: the parts that its field mask names.
#[derive(Debug, Default)]
struct Change {
    labels: Option<LabelChange>,
    target: Option<Descriptor>,
    annotations: Vec<(String, Option<String>)>,
    all_annotations: Option<Labels>,
}

impl Change {
    /// No path at all means labels and target.
    fn of(image: wire::Image, paths: Vec<String>) -> Result<Self, Status> {
        let labels = checked_labels(image.labels)?;
        let mut change = Self::default();
        let given = image.target.as_ref().map(|target| target.annotations.clone()).unwrap_or_default();
        if paths.is_empty() {
            change.labels = Some(LabelChange::Replace(labels));
            change.target = Some(descriptor_in(required(image.target, "target")?)?);
            return Ok(change);
        }
        let (label_paths, paths): (Vec<_>, Vec<_>) =
            paths.into_iter().partition(|path| path == "labels" || path.starts_with("labels."));
        if !label_paths.is_empty() {
            change.labels = Some(label_change(Some(FieldMask { paths: label_paths }), labels, "an image")?);
        }
        for path in paths {
            match (path.as_str(), path.strip_prefix("annotations.")) {
                (_, Some(key)) => change.annotations.push((key.to_owned(), given.get(key).cloned())),
                ("annotations", _) => change.all_annotations = Some(labels_in(given.clone())),
                ("target", _) => {
                    change.target = Some(descriptor_in(required(image.target.clone(), "target")?)?);
                }
                _ => return Err(immutable(&path, "an image")),
            }
        }
        Ok(change)
    }

    fn apply(&self, image: &mut ImageRecord) -> Result<(), StoreError> {
        if let Some(labels) = &self.labels {
            labels.apply(&mut image.labels)?;
        }
        if let Some(target) = &self.target {
            image.target = target.clone();
        }
        if let Some(all) = &self.all_annotations {
            image.target.annotations.clone_from(all);
        }
        for (key, value) in &self.annotations {
            match value.as_deref() {
                None | Some("") => image.target.annotations.remove(key),
                Some(value) => image.target.annotations.insert(key.clone(), value.to_owned()),
            };
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl wire::images_server::Images for ImagesService {
    async fn get(
        &self,
        request: Request<wire::GetImageRequest>,
    ) -> Result<Response<wire::GetImageResponse>, Status> {
        let space = space(self.engine.store(), &request)?;
        let name = request.into_inner().name;
        let image = blocking(move || space.image(&name)).await?;
        Ok(Response::new(wire::GetImageResponse { image: Some(image_out(image)) }))
    }

    async fn list(
        &self,
        request: Request<wire::ListImagesRequest>,
    ) -> Result<Response<wire::ListImagesResponse>, Status> {
        let space = space(self.engine.store(), &request)?;
        let filters = filters(&request.into_inner().filters)?;
        let found = blocking(move || space.images()).await?;
        let wanted = |image: &ImageRecord| filters.matches(|path| image_field(image, path));
        let images = found.into_iter().filter(wanted).map(image_out).collect();
        Ok(Response::new(wire::ListImagesResponse { images }))
    }

    async fn create(
        &self,
        request: Request<wire::CreateImageRequest>,
    ) -> Result<Response<wire::CreateImageResponse>, Status> {
        let space = space(self.engine.store(), &request)?;
        let image = required(request.into_inner().image, "image")?;
        let target = descriptor_in(required(image.target, "target")?)?;
        let record = ImageRecord::new(image.name, target, checked_labels(image.labels)?);
        let made = blocking(move || space.create_image(record)).await?;
        Ok(Response::new(wire::CreateImageResponse { image: Some(image_out(made)) }))
    }

    async fn update(
        &self,
        request: Request<wire::UpdateImageRequest>,
    ) -> Result<Response<wire::UpdateImageResponse>, Status> {
        let space = space(self.engine.store(), &request)?;
        let wire::UpdateImageRequest { image, update_mask, .. } = request.into_inner();
        let image = required(image, "image")?;
        let name = image.name.clone();
        let change = Change::of(image, paths(update_mask))?;
        let updated = blocking(move || space.update_image(&name, |image| change.apply(image))).await?;
        Ok(Response::new(wire::UpdateImageResponse { image: Some(image_out(updated)) }))
    }

    async fn delete(&self, request: Request<wire::DeleteImageRequest>) -> Result<Response<()>, Status> {
        let space = space(self.engine.store(), &request)?;
        let wire::DeleteImageRequest { name, sync, target } = request.into_inner();
        let target = target.map(|target| target.digest.parse::<Digest>()).transpose().map_err(status)?;
        let engine = self.engine.clone();
        blocking(move || {
            space.delete_image_if(&name, target.as_ref())?;
            if sync {
                engine.collect()?;
            } else {
                engine.collect_soon();
            }
            Ok::<_, CallError>(())
        })
        .await?;
        Ok(Response::new(()))
    }
}

#[cfg(test)]
mod tests {
    use runtime_api::containerd::types;

    use super::*;

    fn image() -> wire::Image {
        let annotations = [("a".to_owned(), "1".to_owned()), ("gone".to_owned(), String::new())].into();
        let target = types::Descriptor {
            media_type: "application/x".into(),
            digest: Digest::of(b"new").to_string(),
            size: 3,
            annotations,
        };
        let labels = [("l".to_owned(), "1".to_owned())].into();
        wire::Image { name: "n".into(), labels, target: Some(target), ..Default::default() }
    }

    fn changed(paths: &[&str]) -> ImageRecord {
        let mut target = Descriptor::of("application/old", b"old");
        target.annotations =
            [("gone".to_owned(), "x".to_owned()), ("kept".to_owned(), "y".to_owned())].into();
        let mut record = ImageRecord::new("n", target, [("old".to_owned(), "1".to_owned())].into());
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        Change::of(image(), paths).unwrap().apply(&mut record).unwrap();
        record
    }

    #[test]
    fn a_mask_changes_what_it_names_and_nothing_else() {
        let all = changed(&[]);
        assert_eq!((all.target.size, all.labels.contains_key("old")), (3, false));
        let labels = changed(&["labels.l"]);
        assert_eq!((labels.labels.len(), labels.target.digest), (2, Digest::of(b"old")));
        let annotations = changed(&["annotations.a", "annotations.gone"]).target;
        assert_eq!(annotations.digest, Digest::of(b"old"));
        assert_eq!(annotations.annotations.keys().collect::<Vec<_>>(), ["a", "kept"]);
        let target = changed(&["target"]);
        assert_eq!((target.target.digest, target.labels.contains_key("old")), (Digest::of(b"new"), true));
    }

    #[test]
    fn a_mask_with_an_immutable_field_is_refused() {
        let error = Change::of(image(), vec!["name".to_owned()]).unwrap_err();
        assert_eq!(error.code(), tonic::Code::InvalidArgument);
    }
}
