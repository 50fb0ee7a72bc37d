"""What dashboards and rules are written from: `python -m scripts.render_monitoring`."""
