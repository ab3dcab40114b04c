"""Fastest implementations as measured, by size and backend; written by `python -m benchmarks.impls`."""

# fmt: off

ROWS = (
    {"op": "linear_recurrence", "backend": "cpu", "steps": 16, "numbers": 512, "impl": "scan", "ms": {"scan": 0.139, "associative": 0.162, "chunked": 0.323}},
    {"op": "linear_recurrence", "backend": "cpu", "steps": 16, "numbers": 8192, "impl": "scan", "ms": {"scan": 0.99, "associative": 1.74, "chunked": 1.902}},
    {"op": "linear_recurrence", "backend": "cpu", "steps": 16, "numbers": 65536, "impl": "scan", "ms": {"scan": 4.273, "associative": 8.908, "chunked": 11.016}},
    {"op": "linear_recurrence", "backend": "cpu", "steps": 128, "numbers": 512, "impl": "scan", "ms": {"scan": 0.48, "associative": 1.167, "chunked": 0.724}},
    {"op": "linear_recurrence", "backend": "cpu", "steps": 128, "numbers": 8192, "impl": "scan", "ms": {"scan": 3.73, "associative": 47.713, "chunked": 16.032}},
    {"op": "linear_recurrence", "backend": "cpu", "steps": 128, "numbers": 65536, "impl": "scan", "ms": {"scan": 94.768, "associative": 220.109, "chunked": 175.852}},
    {"op": "linear_recurrence", "backend": "cpu", "steps": 1024, "numbers": 512, "impl": "scan", "ms": {"scan": 1.924, "associative": 6.416, "chunked": 3.848}},
    {"op": "linear_recurrence", "backend": "cpu", "steps": 1024, "numbers": 8192, "impl": "scan", "ms": {"scan": 105.954, "associative": 257.376, "chunked": 210.27}},
    {"op": "linear_recurrence", "backend": "cpu", "steps": 1024, "numbers": 65536, "impl": "scan", "ms": {"scan": 773.532, "associative": 2741.563, "chunked": 2386.852}},
)
