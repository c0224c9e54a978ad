//! How fast a blob comes from loopback: a measurement, run by hand.
//!
//! `cargo test --release -p storage-registry --test it -- --ignored --nocapture throughput`

use std::time::{Duration, Instant};

use storage_model::{Descriptor, Digest, media};
use storage_registry::Client;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::common::{config, reference};

/// Bytes of the blob.
const SIZE: u64 = 2 << 30;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn bytes_per_second_from_loopback() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { serve(TcpListener::from_std(listener).unwrap()).await });
    });
    let client = Client::new(config()).unwrap();
    let descriptor = Descriptor::new(media::OCI_LAYER, Digest::of(b""), SIZE);
    for streams in [1, 4] {
        let (begun, cpu) = (Instant::now(), cpu_time());
        let tasks: Vec<_> = (0..streams)
            .map(|_| {
                let (client, descriptor) = (client.clone(), descriptor.clone());
                let name = reference(&format!("{host}/a"));
                tokio::spawn(async move {
                    let mut stream = client.blob(&name, &descriptor, 0).await.unwrap();
                    let (mut bytes, mut chunks) = (0_u64, 0_u64);
                    while let Some(chunk) = stream.next().await {
                        bytes += chunk.unwrap().len() as u64;
                        chunks += 1;
                    }
                    assert_eq!(bytes, SIZE);
                    bytes / chunks
                })
            })
            .collect();
        let mut chunk = 0;
        for task in tasks {
            chunk = task.await.unwrap();
        }
        let (took, total) = (begun.elapsed(), SIZE * streams);
        let busy = cpu_time() - cpu;
        println!(
            "{streams} streams: {:.0} MB/s, {chunk} bytes a chunk, {:.2} CPU s/GB (both sides)",
            total as f64 / 1e6 / took.as_secs_f64(),
            busy.as_secs_f64() / (total as f64 / 1e9)
        );
    }
}

/// CPU time of this process, from `/proc` (in ticks of 10 ms).
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

async fn serve(listener: TcpListener) {
    let zeros = vec![0_u8; 1 << 20];
    while let Ok((mut socket, _)) = listener.accept().await {
        let zeros = zeros.clone();
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                if socket.read_buf(&mut head).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\nConnection: close\r\n\r\n");
            let _ = socket.write_all(answer.as_bytes()).await;
            for _ in 0..SIZE / zeros.len() as u64 {
                if socket.write_all(&zeros).await.is_err() {
                    return;
                }
            }
        });
    }
}
