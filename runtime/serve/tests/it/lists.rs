//! Lists: repositories, tags, referrers.

use serde_json::json;
use storage_model::{Descriptor, Digest, media};

use crate::client::Server;
use crate::memory::Memory;

#[tokio::test]
async fn following_the_links_gives_every_tag_once_and_in_order() {
    let memory = Memory::new();
    let tags: Vec<String> = (0..25).map(|number| format!("v{number:02}")).collect();
    for tag in tags.iter().rev() {
        memory.simple(&format!("ghcr.io/x/a:{tag}"), &[]);
    }
    let server = Server::start(memory).await;
    let whole = server.get("/v2/x/a/tags/list").await.json();
    assert_eq!(whole, json!({"name": "x/a", "tags": tags}));
    let mut next = Some("/v2/x/a/tags/list?n=7&ns=ghcr.io".to_owned());
    let mut seen = Vec::new();
    while let Some(path) = next {
        let answer = server.get(&path).await;
        let page = answer.json()["tags"].as_array().unwrap().clone();
        assert!(page.len() <= 7);
        seen.extend(page.iter().map(|tag| tag.as_str().unwrap().to_owned()));
        next = answer.header("link").map(|link| link[1..link.find('>').unwrap()].to_owned());
    }
    assert_eq!(seen, tags);
    assert_eq!(server.get("/v2/x/a/tags/list?n=0").await.json()["tags"], json!([]));
    assert_eq!(server.get("/v2/x/a/tags/list?n=1000000000").await.json()["tags"], json!(tags));
    let wrong = server.get("/v2/x/a/tags/list?n=-1").await;
    assert_eq!((wrong.status, wrong.code().as_str()), (400, "PAGINATION_NUMBER_INVALID"));
}

#[tokio::test]
async fn the_catalog_names_each_repository_so_that_it_can_be_asked_for() {
    let memory = Memory::new();
    for name in ["docker.io/library/a:1", "ghcr.io/x/b:1", "localhost:5000/c:1"] {
        memory.simple(name, &[]);
    }
    let server = Server::start(memory).await;
    let listed = server.get("/v2/_catalog").await.json();
    let names: Vec<_> =
        listed["repositories"].as_array().unwrap().iter().filter_map(|name| name.as_str()).collect();
    assert_eq!(names, ["docker.io/library/a", "ghcr.io/x/b", "localhost:5000/c"]);
    for name in names {
        assert_eq!(server.get(&format!("/v2/{name}/manifests/1")).await.status, 200, "{name}");
    }
}

#[tokio::test]
async fn referrers_are_the_manifests_about_a_subject_and_can_be_asked_for_by_type() {
    let memory = Memory::new();
    let subject = memory.simple("quay.io/a:1", &[b"layer"]);
    let config = memory.put(b"{}");
    let about = |kind: Option<&str>, number: u32| {
        let mut document = json!({"schemaVersion": 2, "mediaType": media::OCI_MANIFEST,
            "config": Descriptor::new("application/x.config", config, 2), "layers": [],
            "subject": subject, "annotations": {"number": number.to_string()}});
        if let Some(kind) = kind {
            document["artifactType"] = kind.into();
        }
        document
    };
    let signature =
        memory.image("quay.io/a:signature", media::OCI_MANIFEST, &about(Some("application/x.sig"), 1));
    let plain = memory.image("quay.io/a:plain", media::OCI_MANIFEST, &about(None, 2));
    // As clients push it to registries without the API: an index tagged with the digest.
    let tagged = about(Some("application/x.sbom"), 3).to_string();
    let tagged = Descriptor::new(media::OCI_MANIFEST, memory.put(tagged.as_bytes()), tagged.len() as u64);
    let list = json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": [tagged]});
    memory.image(&format!("quay.io/a:sha256-{}", subject.digest.hex()), media::OCI_INDEX, &list);
    // The same subject in another repository is that repository's.
    memory.image("quay.io/b:1", media::OCI_MANIFEST, &about(Some("application/x.sig"), 4));
    let server = Server::start(memory).await;
    let path = format!("/v2/quay.io/a/referrers/{}", subject.digest);
    let answer = server.get(&path).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(media::OCI_INDEX)));
    let all = answer.json();
    let mut found: Vec<(String, String)> = all["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (one["digest"].as_str().unwrap().to_owned(), one["artifactType"].as_str().unwrap().to_owned())
        })
        .collect();
    found.sort();
    let mut wanted = vec![
        (signature.digest.to_string(), "application/x.sig".to_owned()),
        (plain.digest.to_string(), "application/x.config".to_owned()),
        (tagged.digest.to_string(), "application/x.sbom".to_owned()),
    ];
    wanted.sort();
    assert_eq!(found, wanted);
    let some = server.get(&format!("{path}?artifactType=application%2Fx.sig")).await;
    assert_eq!(some.header("oci-filters-applied"), Some("artifactType"));
    assert_eq!(some.json()["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(some.json()["manifests"][0]["annotations"]["number"], "1");
    let none = server.get(&format!("/v2/quay.io/a/referrers/{}", Digest::of(b"none"))).await;
    assert_eq!((none.status, none.json()["manifests"].as_array().unwrap().len()), (200, 0));
}
