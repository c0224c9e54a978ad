//! Namespaces, images, leases, containers, introspection, health.

use prost_types::{Any, FieldMask};
use runtime_api::containerd::services::containers::v1 as containers;
use runtime_api::containerd::services::images::v1 as images;
use runtime_api::containerd::services::introspection::v1 as introspection;
use runtime_api::containerd::services::leases::v1 as leases;
use runtime_api::containerd::services::namespaces::v1 as namespaces;
use runtime_api::containerd::types::Descriptor;
use runtime_api::grpc::health::v1 as health;
use storage_model::Digest;
use tonic::{Code, Request};

use crate::fixture::{Daemon, client, request};

fn image(name: &str, content: &[u8]) -> images::Image {
    let target = Descriptor {
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        digest: Digest::of(content).to_string(),
        size: content.len() as i64,
        ..Default::default()
    };
    images::Image { name: name.to_owned(), target: Some(target), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_a_namespace_is_refused_in_containerds_words() {
    let daemon = Daemon::start().await;
    let mut client = client!(daemon, images::images_client::ImagesClient<_>);
    let error = client.list(Request::new(images::ListImagesRequest::default())).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::FailedPrecondition, "namespace is required"));
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_made_changed_found_and_deleted_as_containerd_does() {
    let daemon = Daemon::start().await;
    let mut client = client!(daemon, images::images_client::ImagesClient<_>);
    let create = |image| request(images::CreateImageRequest { image: Some(image), ..Default::default() });
    let made = client.create(create(image("b", b"one"))).await.unwrap().into_inner().image.unwrap();
    assert_eq!(made.created_at, made.updated_at);
    client.create(create(image("a", b"one"))).await.unwrap();
    let taken = client.create(create(image("a", b"two"))).await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists);
    let empty = client.create(create(images::Image { target: None, ..image("c", b"x") })).await.unwrap_err();
    assert_eq!(empty.code(), Code::InvalidArgument);

    let labels = [("k".to_owned(), "v".to_owned())].into();
    let update = |paths: &[&str], image| {
        let mask = FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() };
        request(images::UpdateImageRequest {
            image: Some(image),
            update_mask: Some(mask),
            ..Default::default()
        })
    };
    let labelled = images::Image { labels, ..image("a", b"ignored") };
    let updated = client.update(update(&["labels.k"], labelled)).await.unwrap().into_inner().image.unwrap();
    assert_eq!(updated.target.unwrap().digest, Digest::of(b"one").to_string());
    let retargeted = client.update(update(&["target"], image("a", b"two"))).await.unwrap();
    let retargeted = retargeted.into_inner().image.unwrap();
    assert_eq!((retargeted.labels.len(), retargeted.target.unwrap().size), (1, 3));
    let unknown = client.update(update(&[], image("none", b"x"))).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);

    let mut found = async |filters: &[&str]| {
        let filters = filters.iter().map(|filter| (*filter).to_owned()).collect();
        let list = client.list(request(images::ListImagesRequest { filters })).await.unwrap();
        list.into_inner().images.into_iter().map(|image| image.name).collect::<Vec<_>>()
    };
    assert_eq!(found(&[]).await, ["a", "b"]);
    assert_eq!(found(&["labels.k==v"]).await, ["a"]);
    assert_eq!(found(&["name==b", "name==none"]).await, ["b"]);
    assert_eq!(found(&[&format!("target.digest=={}", Digest::of(b"two"))]).await, ["a"]);

    let delete = |target: Option<&[u8]>| {
        let target = target.and_then(|content| image("", content).target);
        request(images::DeleteImageRequest { name: "a".to_owned(), sync: true, target })
    };
    let moved = client.delete(delete(Some(b"one"))).await.unwrap_err();
    assert_eq!(moved.code(), Code::NotFound, "it points elsewhere by now");
    client.delete(delete(Some(b"two"))).await.unwrap();
    assert_eq!(client.delete(delete(None)).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_come_by_use_and_go_only_when_empty() {
    let daemon = Daemon::start().await;
    let mut client = client!(daemon, namespaces::namespaces_client::NamespacesClient<_>);
    let get = |name: &str| Request::new(namespaces::GetNamespaceRequest { name: name.to_owned() });
    let unused = client.get(get("unused")).await.unwrap().into_inner().namespace.unwrap();
    assert!(unused.labels.is_empty());
    let namespace =
        namespaces::Namespace { name: "made".to_owned(), labels: [("a".to_owned(), "1".to_owned())].into() };
    let create = || Request::new(namespaces::CreateNamespaceRequest { namespace: Some(namespace.clone()) });
    client.create(create()).await.unwrap();
    assert_eq!(client.create(create()).await.unwrap_err().code(), Code::AlreadyExists);
    let mask = FieldMask { paths: vec!["labels.a".to_owned()] };
    let update = namespaces::UpdateNamespaceRequest {
        namespace: Some(namespaces::Namespace { name: "made".to_owned(), ..Default::default() }),
        update_mask: Some(mask),
    };
    let updated = client.update(Request::new(update)).await.unwrap().into_inner().namespace.unwrap();
    assert!(updated.labels.is_empty());

    let mut images = client!(daemon, images::images_client::ImagesClient<_>);
    let create = images::CreateImageRequest { image: Some(image("a", b"x")), ..Default::default() };
    images.create(request(create)).await.unwrap();
    let list = client.list(Request::new(Default::default())).await.unwrap().into_inner().namespaces;
    let names: Vec<_> = list.iter().map(|namespace| namespace.name.as_str()).collect();
    assert_eq!(names, ["made", "test"]);
    let delete = |name: &str| Request::new(namespaces::DeleteNamespaceRequest { name: name.to_owned() });
    let full = client.delete(delete("test")).await.unwrap_err();
    assert_eq!(full.code(), Code::FailedPrecondition);
    assert!(full.message().contains("image"), "{full}");
    client.delete(delete("made")).await.unwrap();
    assert_eq!(client.delete(delete("made")).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_hold_resources_of_the_known_kinds() {
    let daemon = Daemon::start().await;
    let mut client = client!(daemon, leases::leases_client::LeasesClient<_>);
    let made = client.create(request(leases::CreateRequest::default())).await.unwrap();
    let id = made.into_inner().lease.unwrap().id;
    assert!(!id.is_empty());
    let named = || leases::CreateRequest { id: "l".to_owned(), ..Default::default() };
    client.create(request(named())).await.unwrap();
    assert_eq!(client.create(request(named())).await.unwrap_err().code(), Code::AlreadyExists);

    let digest = Digest::of(b"x").to_string();
    let mut add = async |kind: &str, name: &str| {
        let resource = leases::Resource { r#type: kind.to_owned(), id: name.to_owned() };
        let add = leases::AddResourceRequest { id: id.clone(), resource: Some(resource) };
        client.add_resource(request(add)).await
    };
    add("content", &digest).await.unwrap();
    add("snapshots/overlayfs", "a key").await.unwrap();
    assert!(add("unknown", "x").await.is_err());
    let resources = client.list_resources(request(leases::ListResourcesRequest { id: id.clone() })).await;
    assert_eq!(resources.unwrap().into_inner().resources.len(), 2);
    let resource = Some(leases::Resource { r#type: "content".to_owned(), id: digest });
    let delete = leases::DeleteResourceRequest { id: id.clone(), resource };
    client.delete_resource(request(delete)).await.unwrap();
    let resources = client.list_resources(request(leases::ListResourcesRequest { id: id.clone() })).await;
    assert_eq!(resources.unwrap().into_inner().resources.len(), 1);

    let list = leases::ListRequest { filters: vec!["id==l".to_owned()] };
    assert_eq!(client.list(request(list)).await.unwrap().into_inner().leases.len(), 1);
    let delete = leases::DeleteRequest { id, sync: true };
    client.delete(request(delete.clone())).await.unwrap();
    assert_eq!(client.delete(request(delete)).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_come_back_as_they_were_given() {
    let daemon = Daemon::start().await;
    let mut client = client!(daemon, containers::containers_client::ContainersClient<_>);
    let options = Any { type_url: "options".to_owned(), value: vec![1] };
    let runtime =
        containers::container::Runtime { name: "io.containerd.runc.v2".to_owned(), options: Some(options) };
    let given = containers::Container {
        id: "c".to_owned(),
        runtime: Some(runtime),
        spec: Some(Any { type_url: "spec".to_owned(), value: b"{\"ociVersion\":\"1.1.0\"}".to_vec() }),
        labels: [("k".to_owned(), "v".to_owned())].into(),
        ..Default::default()
    };
    let create = || request(containers::CreateContainerRequest { container: Some(given.clone()) });
    client.create(create()).await.unwrap();
    assert_eq!(client.create(create()).await.unwrap_err().code(), Code::AlreadyExists);
    let get = containers::GetContainerRequest { id: "c".to_owned() };
    let got = client.get(request(get)).await.unwrap().into_inner().container.unwrap();
    assert_eq!((&got.runtime, &got.spec, &got.labels), (&given.runtime, &given.spec, &given.labels));

    let update = containers::UpdateContainerRequest {
        container: Some(containers::Container { image: "new".to_owned(), ..given.clone() }),
        update_mask: Some(FieldMask { paths: vec!["image".to_owned()] }),
    };
    let updated = client.update(request(update)).await.unwrap().into_inner().container.unwrap();
    assert_eq!((updated.image.as_str(), &updated.spec), ("new", &given.spec));
    let list = containers::ListContainersRequest { filters: vec!["image==new".to_owned()] };
    let mut stream = client.list_stream(request(list)).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().container.unwrap().id, "c");
    assert!(stream.message().await.unwrap().is_none());
    let delete = || request(containers::DeleteContainerRequest { id: "c".to_owned() });
    client.delete(delete()).await.unwrap();
    assert_eq!(client.delete(delete()).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_question_before_every_pull_is_answered() {
    let daemon = Daemon::start().await;
    let mut client = client!(daemon, introspection::introspection_client::IntrospectionClient<_>);
    let filters = vec!["type==io.containerd.snapshotter.v1, id==overlayfs".to_owned()];
    let found = client.plugins(Request::new(introspection::PluginsRequest { filters })).await.unwrap();
    let plugins = found.into_inner().plugins;
    assert_eq!(plugins.len(), 1);
    assert_eq!(plugins[0].platforms[0].os, "linux");
    assert!(plugins[0].init_err.is_none());
    let server = client.server(Request::new(())).await.unwrap().into_inner();
    assert_eq!((server.uuid.len(), server.pid), (36, u64::from(std::process::id())));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_knows_the_services_and_no_others() {
    let daemon = Daemon::start().await;
    let mut client = client!(daemon, health::health_client::HealthClient<_>);
    for service in ["", "containerd.services.content.v1.Content", "windlass.v1.Engine"] {
        let check = health::HealthCheckRequest { service: service.to_owned() };
        let answer = client.check(check).await.unwrap().into_inner();
        assert_eq!(answer.status(), health::health_check_response::ServingStatus::Serving, "{service}");
    }
    let unknown = health::HealthCheckRequest { service: "no.such.Service".to_owned() };
    assert_eq!(client.check(unknown).await.unwrap_err().code(), Code::NotFound);
}
