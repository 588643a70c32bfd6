module bench/generator

go 1.21
