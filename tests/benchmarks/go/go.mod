module trio-echo/benchmarks

go 1.23
