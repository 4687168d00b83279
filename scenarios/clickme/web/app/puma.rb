# frozen_string_literal: true

# One process; its threads wait for Redis at the same time.
workers 0
threads 5, 5
bind 'tcp://0.0.0.0:8080'
