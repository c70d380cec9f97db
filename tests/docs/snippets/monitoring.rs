//! The blocks of docs/monitoring/README.md.

use std::time::Duration;

use super::Result;

mod wiring {
    use super::Result;
    use axum::extract::State;
    use leaktrace::metrics::{BUCKETS, Metrics};
    use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

    fn start(monitor: &leaktrace::Monitor) -> Result<axum::Router> {
        let exporter = PrometheusBuilder::new()
            .with_recommended_naming(true)
            .set_buckets_for_metric(Matcher::Prefix("db.client.connection.".into()), BUCKETS)?
            .install_recorder()?;
        let metrics = Metrics::of(monitor)?; // after the exporter, before the pools

        let app = axum::Router::new()
            .route("/metrics", axum::routing::get(page))
            .with_state((metrics, exporter));
        Ok(app)
    }

    async fn page(State((metrics, exporter)): State<(Metrics, PrometheusHandle)>) -> String {
        metrics.publish(); // the values of this moment
        exporter.render()
    }
}

fn without_a_handler(metrics: leaktrace::metrics::Metrics) {
    tokio::spawn(metrics.publish_every(Duration::from_secs(5)));
}

async fn health(metrics: leaktrace::metrics::Metrics, pool: leaktrace::PgPool) -> bool {
    let health = metrics.health(&pool).await; // feature `kit`; in the readiness handler, say
    health.ok
}

fn labels(monitor: &leaktrace::Monitor) -> Result<leaktrace::metrics::Metrics> {
    use leaktrace::metrics::Metrics;

    let metrics = Metrics::options().routes(50).sites(50).of(monitor)?;
    Ok(metrics)
}
