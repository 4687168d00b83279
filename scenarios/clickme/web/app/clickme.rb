# frozen_string_literal: true

require 'redis'
require 'sinatra/base'

# A page with one button; Redis counts how often it was pressed.
class ClickMe < Sinatra::Base
  COUNTER = 'clicks'
  # One connection, which the client library shares safely between puma's threads.
  REDIS = Redis.new(url: ENV.fetch('REDIS_URL', 'redis://redis:6379'), timeout: 2.0)

  # The log shows faults, not requests: writing a line for each would be measured as well.
  set :logging, false
  set :dump_errors, false
  set :show_exceptions, false
  set :raise_errors, false

  get '/' do
    erb :page, locals: { clicks: REDIS.get(COUNTER).to_i }
  end

  # A browser is sent back to the page; a program is told the new count.
  post '/click' do
    clicks = REDIS.incr(COUNTER)
    redirect to('/'), 303 if request.env['HTTP_ACCEPT'].to_s.include?('text/html')
    content_type :text
    clicks.to_s
  end

  get '/health' do
    content_type :text
    REDIS.ping == 'PONG' ? 'ok' : halt(503, 'redis: unexpected answer')
  end

  error Redis::BaseConnectionError do
    content_type :text
    [503, "redis: #{env['sinatra.error'].message}"]
  end

  error do
    fault = env['sinatra.error']
    warn "#{request.request_method} #{request.path}: #{fault.class}: #{fault.message}"
    content_type :text
    [500, 'internal error']
  end
end
